//! Prints the infohashes of paths, for `bench/infohashes`: reads lines of `plain PATH` or `times PATH` from stdin, and writes one
//! infohash or error for each to stdout.

use std::{
    error::Error,
    io::{self, BufRead as _, Write as _},
    ops::ControlFlow,
    path::Path,
};

use store::{Content as _, Scan, ScanRules};

fn main() -> Result<(), Box<dyn Error>> {
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (times, path) = line.split_once(' ').ok_or("a line is 'plain PATH' or 'times PATH'")?;
        let rules = ScanRules { times: times == "times", ..ScanRules::default() };
        let mut stdout = io::stdout().lock();
        match infohash(Path::new(path), &rules) {
            Ok(infohash) => writeln!(stdout, "{infohash}")?,
            Err(error) => writeln!(stdout, "{error}")?,
        }
        stdout.flush()?;
    }
    Ok(())
}

fn infohash(path: &Path, rules: &ScanRules) -> Result<String, Box<dyn Error>> {
    let shared = Scan::new(path, None, rules)?.hash(None, &|_| ControlFlow::Continue(()))?;
    Ok(shared.metainfo().infohash().to_string())
}
