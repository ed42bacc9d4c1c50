//! The `seeder` program.

fn main() -> std::process::ExitCode {
    seeder::cli::main(startup::parse(seeder::cli::EXCLUSIVE))
}
