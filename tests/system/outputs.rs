//! Outputs that exist already.

use std::fs;

use leecher::{Config, Destination, FetchError, FetchEvent, Target};
use store::DownloadError;

use crate::{
    proxy::Manner,
    source::{MIB, names_in},
    swarm::test,
};

/// Puts a file where the output should be.
fn occupy(config: &mut Config) -> std::path::PathBuf {
    let Destination::Directory(dir) = &config.destination else { panic!("{config:?}") };
    let path = dir.join("mine.txt");
    fs::write(&path, "precious").unwrap();
    config.destination = Destination::Path(path.clone());
    path
}

#[test]
fn what_is_there_is_not_replaced_unasked() {
    test(async |swarm| {
        let source = swarm.share("theirs.txt", 2 * MIB);
        swarm.seed(&source).await;
        let link = source.link(vec![swarm.tracker()], Vec::new());
        for target in [Target::InfoHash(source.infohash()), "theirs.txt".parse().unwrap(), Target::Link(link)]
        {
            let mut config = swarm.config_for(target);
            let path = occupy(&mut config);
            let mut fetch = swarm.fetch(config);
            let outcome = fetch.outcome().await;
            assert!(
                matches!(&outcome, Err(FetchError::Download(DownloadError::OutputExists(at))) if *at == path),
                "{outcome:?}"
            );
            assert_eq!(fs::read(&path).unwrap(), b"precious");
            assert_eq!(names_in(path.parent().unwrap()), ["mine.txt"]);
            assert!(!fetch.story().iter().any(|event| matches!(event, FetchEvent::Started(_))));
        }
    });
}

/// The old file stays until the new one is whole.
#[test]
fn what_is_there_is_replaced_where_that_is_wanted() {
    test(async |swarm| {
        let source = swarm.share("theirs.txt", 4 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let proxy = swarm.proxy(&seeder, Manner::Honest).await;
        let mut config = swarm.config(&source, &[proxy.address]);
        let path = occupy(&mut config);
        config.overwrite = true;
        let mut fetch = swarm.fetch(config);
        proxy.allow(2 * MIB);
        fetch.done(MIB).await;
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        proxy.open();
        source.assert_fetched(&fetch.fetched().await);
    });
}

/// Somebody else takes the name while the share is on its way.
#[test]
fn what_comes_to_be_there_meanwhile_is_not_replaced() {
    test(async |swarm| {
        let source = swarm.share("theirs.txt", 4 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let proxy = swarm.proxy(&seeder, Manner::Honest).await;
        let config = swarm.config(&source, &[proxy.address]);
        let mut fetch = swarm.fetch(config);
        let output = fetch.started().await.output;
        fs::write(&output, "precious").unwrap();
        proxy.open();
        let outcome = fetch.outcome().await;
        assert!(
            matches!(&outcome, Err(FetchError::Download(DownloadError::OutputExists(at))) if *at == output),
            "{outcome:?}"
        );
        assert_eq!(fs::read(&output).unwrap(), b"precious");
    });
}

#[test]
fn two_leechers_do_not_write_one_output() {
    test(async |swarm| {
        let source = swarm.share("single.bin", 4 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let proxy = swarm.proxy(&seeder, Manner::Honest).await;
        let config = swarm.config(&source, &[proxy.address]);
        let mut first = swarm.fetch(config.clone());
        first.started().await;
        let outcome = swarm.fetch(config).outcome().await;
        assert!(matches!(&outcome, Err(FetchError::Download(DownloadError::Locked(_)))), "{outcome:?}");
        proxy.open();
        source.assert_fetched(&first.fetched().await);
    });
}
