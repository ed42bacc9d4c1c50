//! The `shoal` program as its users see it.
#![expect(clippy::unwrap_used, reason = "tests")]

// One program is watched like the other.
#[path = "../../seeder/tests/command_line/json_docs.rs"]
#[expect(dead_code, reason = "other programs do more")]
mod json_docs;
#[path = "../../seeder/tests/command_line/program.rs"]
#[expect(dead_code, reason = "other programs do more")]
mod program;

use std::{
    fs,
    os::unix::net::UnixDatagram,
    process::{Command, Stdio},
};

use program::{PATIENCE, Place, Running, run};
use rustix::process::Signal;

const PARTS: [&str; 8] = ["tracker", "seed", "get", "list", "wait", "check", "link", "completions"];

fn shoal(place: &Place, args: &[&str]) -> Command {
    let mut command = place.command(env!("CARGO_BIN_EXE_shoal"), args);
    command.env("SHOAL_BIND", "127.0.0.1").env("SHOAL_NO_LOG_FILE", "true");
    command
}

#[test]
fn one_program_tracks_seeds_lists_links_and_fetches() {
    let place = Place::new();
    fs::write(place.path("data.bin"), "bytes ".repeat(200_000)).unwrap();
    let tracker = Running::start(shoal(&place, &["tracker", "-p", "0", "--state", "none"]));
    let listening = tracker.line_with("[LISTENING]");
    let address = listening.rsplit(' ').next().unwrap();
    let seeder = Running::start(shoal(&place, &["seed", "data.bin", "-p", "0", "--tracker", address]));
    // What it prints can be pasted: it names this program.
    let fetch_it = seeder.line_with("fetch it");
    let (command, link) = fetch_it.trim().strip_prefix("fetch it  ").unwrap().split_once(" get ").unwrap();
    assert_eq!(command, env!("CARGO_BIN_EXE_shoal"));
    let link = link.trim_matches('\'');
    seeder.line_with("Registered");

    let listed = run(shoal(&place, &["list", "--tracker", address]));
    assert_eq!(listed.code, Some(0), "{listed:?}");
    assert!(listed.out.iter().any(|line| line.contains("data.bin")), "{listed:?}");
    let linked = run(shoal(&place, &["link", "data.bin", "--tracker", address]));
    assert_eq!((linked.code, &linked.out[..]), (Some(0), &[link.to_owned()][..]), "{linked:?}");
    let fetched = run(shoal(&place, &["get", link, "-o", "copy.bin"]));
    assert_eq!(fetched.code, Some(0), "{fetched:?}");
    assert_eq!(fs::read(place.path("copy.bin")).unwrap(), fs::read(place.path("data.bin")).unwrap());
    let checked = run(shoal(&place, &["check", link, "-o", "copy.bin"]));
    assert_eq!(checked.code, Some(0), "{checked:?}");
    fs::write(place.path("copy.bin"), "something else").unwrap();
    let wrong = run(shoal(&place, &["check", link, "-o", "copy.bin"]));
    assert_eq!(wrong.code, Some(32), "{wrong:?}");
    for program in [seeder, tracker] {
        program.signal(Signal::TERM);
        assert_eq!(program.end().code, Some(0));
    }
}

#[test]
fn waits_until_enough_hosts_have_fetched_a_share() {
    let place = Place::new();
    fs::write(place.path("data.bin"), "bytes ".repeat(200_000)).unwrap();
    let tracker = Running::start(shoal(&place, &["tracker", "-p", "0", "--state", "none"]));
    let listening = tracker.line_with("[LISTENING]");
    let address = listening.rsplit(' ').next().unwrap();
    let waiting = ["wait", "data.bin", "--hosts", "2", "--tracker", address];
    // It may begin before anybody has the share.
    let waiter = Running::start(shoal(&place, &waiting));
    let seeder = Running::start(shoal(&place, &["seed", "data.bin", "-p", "0", "--tracker", address]));
    seeder.line_with("Registered");
    assert_eq!(waiter.line_with("hosts have it"), "0 of 2 hosts have it");

    let late =
        run(shoal(&place, &["wait", "data.bin", "--hosts", "1", "--timeout", "1s", "--tracker", address]));
    late.assert_failed(7, &["0 of 1 hosts have data.bin after 1s"]);
    // Who is late has a name.
    let slow = [
        "get",
        "data.bin",
        "--tracker",
        address,
        "-o",
        "slow",
        "--label",
        "slow-host",
        "--download-limit",
        "1K",
    ];
    let slow = Running::start(shoal(&place, &slow));
    waiter.line_with("1 fetching, the last, slow-host (127.0.0.1:");
    let late =
        run(shoal(&place, &["wait", "data.bin", "--hosts", "1", "--timeout", "1s", "--tracker", address]));
    late.assert_failed(7, &["slow-host (127.0.0.1:", ") has 0%"]);
    slow.signal(Signal::INT);
    assert_eq!(slow.end().code, Some(130));
    // Nobody answers there.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let nobody = silent.local_addr().unwrap().to_string();
    let unknown =
        run(shoal(&place, &["wait", "data.bin", "--hosts", "1", "--timeout", "1s", "--tracker", &nobody]));
    unknown.assert_failed(6, &["how many hosts have data.bin is not known after 1s"]);
    // No time is set, so it would wait for ever.
    let unresolved =
        run(shoal(&place, &["wait", "data.bin", "--hosts", "1", "--tracker", "no-host.invalid"]));
    unresolved.assert_failed(6, &["tracker no-host.invalid:6020: its name cannot be resolved"]);
    let unknown =
        run(shoal(&place, &["wait", "other", "--hosts", "1", "--timeout", "1s", "--tracker", address]));
    unknown.assert_failed(3, &["no tracker knows other yet"]);
    for (label, reached) in [("one", "1 of 2"), ("two", "2 of 2"), ("two", "")] {
        let args = [
            "get",
            "data.bin",
            "--tracker",
            address,
            "-o",
            &format!("copy-{label}"),
            "--label",
            label,
            "--overwrite",
        ];
        let fetched = run(shoal(&place, &args));
        assert_eq!(fetched.code, Some(0), "{fetched:?}");
        if !reached.is_empty() {
            let line = waiter.line_with("hosts have it (new");
            assert!(
                line.starts_with(reached) && line.contains(&format!("(new: {label} (127.0.0.1))")),
                "{line}"
            );
        }
    }
    assert_eq!(waiter.end().code, Some(0));
    let json = run(shoal(&place, &["wait", "data.bin", "--hosts", "2", "--json", "--tracker", address]));
    let [line] = &json.out[..] else { panic!("{json:?}") };
    json_docs::check(line);
    assert!(line.contains(r#""event":"reached""#) && line.contains(r#""completed":2"#), "{line}");
    assert!(
        line.contains(
            r#""done":[{"address":"127.0.0.1","label":"one"},{"address":"127.0.0.1","label":"two"}]"#
        ),
        "{line}"
    );
    // A name that two shares have waits for neither.
    fs::write(place.path("other.bin"), "other").unwrap();
    let other = ["seed", "other.bin", "--name", "data.bin", "-p", "0", "--tracker", address];
    let other = Running::start(shoal(&place, &other));
    other.line_with("Registered");
    let ambiguous = run(shoal(&place, &["wait", "data.bin", "--hosts", "2", "--tracker", address]));
    ambiguous.assert_failed(2, &["2 shares fit data.bin"]);
}

#[test]
fn each_part_has_a_help_of_one_screen_that_names_it() {
    let place = Place::new();
    let help = run(shoal(&place, &["-h"]));
    assert_eq!(help.code, Some(0));
    for part in PARTS {
        assert!(help.out.iter().any(|line| line.trim_start().starts_with(part)), "{part}: {help:?}");
        let help = run(shoal(&place, &[part, "-h"]));
        assert_eq!(help.code, Some(0), "{help:?}");
        assert!(help.out.iter().any(|line| line.starts_with(&format!("Usage: shoal {part} "))), "{help:?}");
        assert!(help.out.len() <= 24 && help.out.iter().all(|line| line.chars().count() <= 80), "{help:?}");
    }
    // Examples can be pasted too.
    for (part, example) in [
        ("get", "shoal get disk.img --tracker"),
        ("seed", "shoal seed disk.img"),
        ("tracker", "shoal tracker -p"),
    ] {
        let help = run(shoal(&place, &[part, "--help"]));
        assert!(help.out.iter().any(|line| line.trim_start().starts_with(example)), "{part}: {help:?}");
        assert!(
            !help.out.iter().any(|line| line.contains("  leecher ") || line.contains("  seeder ")),
            "{help:?}"
        );
    }
}

#[test]
fn a_command_line_without_a_part_is_an_event_where_events_are_asked_for() {
    let place = Place::new();
    let mut by_variable = shoal(&place, &["fetch", "data.bin"]);
    by_variable.env("SHOAL_JSON", "true");
    for command in [shoal(&place, &["fetch", "data.bin", "--json"]), by_variable] {
        let refused = run(command);
        refused.assert_failed(2, &["unrecognized subcommand 'fetch'"]);
        let [line] = &refused.out[..] else { panic!("{refused:?}") };
        let event = json_docs::check(line);
        assert_eq!(event["code"], 2);
        assert!(event["message"].as_str().unwrap().contains("'fetch'"), "{event}");
    }
    let refused = run(shoal(&place, &["fetch", "data.bin"]));
    assert!(refused.out.is_empty(), "{refused:?}");
}

#[test]
fn a_wrong_command_line_is_a_usage_error_that_names_the_part() {
    let place = Place::new();
    for (args, says) in [
        (&["bogus"][..], "Usage: shoal <COMMAND>"),
        (&["get", "--bogus"], "Usage: shoal get"),
        (&["list", "--bogus"], "Usage: shoal list"),
        (&["get", "a", "-o", "x", "-d", "y"], "'--output' and '--dir' cannot be used together"),
        (&["completions", "bogus"], "bash"),
    ] {
        run(shoal(&place, args)).assert_failed(2, &[says]);
    }
    // As with git and cargo, help goes to stderr if a command is missing.
    let ended = run(shoal(&place, &[]));
    assert_eq!((ended.code, ended.err.contains("Usage: shoal <COMMAND>")), (Some(2), true), "{ended:?}");
}

#[test]
fn a_configuration_file_sets_what_flags_and_variables_do_not() {
    let place = Place::new();
    fs::write(place.path("data.bin"), "bytes").unwrap();
    let config = "[tracker]\nport = 0\nstate = 'none'\n[seed]\nfile = ['not here']\ntracker = ['192.0.2.1', '192.0.2.2']\n";
    fs::write(place.path("shoal.toml"), config).unwrap();
    let tracker = Running::start(shoal(&place, &["tracker", "--config", "shoal.toml"]));
    assert!(!tracker.line_with("[LISTENING]").ends_with(":6020"));
    drop(tracker);

    let link = |args: &[&str], variables: &[(&str, &str)]| {
        let args = [&["link", "--config", "shoal.toml"], args].concat();
        let mut command = shoal(&place, &args);
        run({
            command.envs(variables.iter().copied());
            command
        })
    };
    // The path of the command line wins over `file`.
    let of_file = link(&["data.bin"], &[]);
    assert_eq!(of_file.code, Some(0), "{of_file:?}");
    assert!(of_file.out[0].ends_with("tr=shoal://192.0.2.1:6020&tr=shoal://192.0.2.2:6020"), "{of_file:?}");
    let variable = [("SHOAL_TRACKER", "192.0.2.3")];
    let of_variable = link(&["data.bin"], &variable);
    assert!(of_variable.out[0].ends_with("&dn=data.bin&tr=shoal://192.0.2.3:6020"), "{of_variable:?}");
    let of_flag = link(&["data.bin", "--tracker", "192.0.2.4"], &variable);
    assert!(of_flag.out[0].ends_with("&dn=data.bin&tr=shoal://192.0.2.4:6020"), "{of_flag:?}");
    link(&[], &[]).assert_failed(17, &["not here"]);
    // The file may be named by a variable too.
    let mut command = shoal(&place, &["link", "data.bin"]);
    command.env("SHOAL_CONFIG", "shoal.toml");
    assert_eq!(run(command).out, of_file.out);

    for (config, says) in [
        ("[seed]\n\nprot = 7001\n", "shoal.toml, line 3: [seed] has no key 'prot'"),
        ("[seeder]\n", "shoal.toml, line 1: there is no table 'seeder'"),
        ("[seed]\nport = 7001\nsymlinks = 'x'\n", "The value comes from shoal.toml, line 3."),
    ] {
        fs::write(place.path("shoal.toml"), config).unwrap();
        link(&["data.bin"], &[]).assert_failed(2, &[says]);
    }
    run(shoal(&place, &["link", "data.bin", "--config", "no.toml"]))
        .assert_failed(2, &["cannot read no.toml"]);
    // A table may have what the command line lacks.
    fs::write(place.path("shoal.toml"), "[wait]\nhosts = 0\n").unwrap();
    run(shoal(&place, &["wait", "x", "--config", "shoal.toml"]))
        .assert_failed(2, &["'0' for '--hosts", "shoal.toml, line 2."]);
}

#[test]
fn a_service_manager_learns_when_programs_serve_and_stop() {
    let place = Place::new();
    fs::write(place.path("data.bin"), "bytes").unwrap();
    let manager = UnixDatagram::bind(place.path("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let message = || {
        let mut bytes = [0; 1024];
        let len = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    };
    for (args, status) in [
        (&["tracker", "-p", "0", "--state", "none"][..], "Listening on 127.0.0.1:"),
        (&["seed", "data.bin", "-p", "0", "--tracker", "127.0.0.1:1"], "Serving 1 share on port "),
    ] {
        let mut command = shoal(&place, args);
        command.env("NOTIFY_SOCKET", place.path("notify"));
        let program = Running::start(command);
        let ready = message();
        assert!(ready.starts_with(&format!("READY=1\nSTATUS={status}")), "{ready}");
        if args[0] == "tracker" {
            // It has nothing to read again, and goes on: the manager does not know what it was started with.
            program.signal(Signal::HUP);
            assert!(message().starts_with("RELOADING=1\nMONOTONIC_USEC="));
            assert_eq!(message(), "READY=1\n");
        }
        program.signal(Signal::TERM);
        assert!(message().starts_with("STOPPING=1\n"));
        assert_eq!(program.end().code, Some(0));
    }
}

#[test]
fn there_is_a_manual_page_for_each_part() {
    let place = Place::new();
    let written = run(shoal(&place, &["man", "man/pages"]));
    assert_eq!(written.code, Some(0), "{written:?}");
    let page = |name: &str| fs::read_to_string(place.path("man/pages").join(name)).unwrap();
    for part in PARTS {
        assert!(page("shoal.1").contains(&format!("shoal\\-{part}(1)")), "{part}");
        assert!(page(&format!("shoal-{part}.1")).contains(&format!("shoal {part}")), "{part}");
    }
    let tracker = page("shoal-tracker.1");
    assert!(tracker.contains("\\-\\-heartbeat") && tracker.contains("SHOAL_HEARTBEAT"), "{tracker}");
    fs::write(place.path("file"), "").unwrap();
    run(shoal(&place, &["man", "file"])).assert_failed(17, &["cannot be written"]);
}

#[test]
fn there_is_a_completion_for_each_shell() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(shoal(&place, &["completions", shell]));
        assert_eq!(script.code, Some(0), "{script:?}");
        let text = script.out.join("\n");
        assert!(text.contains("overwrite") && text.contains("heartbeat"), "{shell}: {text}");
        if shell == "bash" {
            fs::write(place.path("shoal.bash"), &text).unwrap();
            let checked = Command::new("bash")
                .args(["-n", "shoal.bash"])
                .current_dir(place.dir())
                .stdin(Stdio::null())
                .status();
            assert!(checked.map_or(true, |status| status.success()), "bash does not read it");
        }
    }
}
