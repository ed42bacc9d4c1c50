//! The `leecher` program.

fn main() -> std::process::ExitCode {
    leecher::cli::main(startup::parse(leecher::cli::EXCLUSIVE))
}
