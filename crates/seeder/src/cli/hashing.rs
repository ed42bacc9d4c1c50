//! Finding and hashing what is shared, with what the user reads of it.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use etcetera::{BaseStrategy, choose_base_strategy};
use proto::ShareName;
use startup::{
    ByteMeter, ExitCode, Failure, Output,
    json::{Event, print_event},
};
use store::{HashCache, LeftOut, Scan, ScanError, ScanRules, ShareError, Shared};
use tokio_util::sync::CancellationToken;

use super::Args;

pub(super) fn rules(args: &Args) -> ScanRules {
    ScanRules {
        strict: args.strict,
        exclude: args.exclude.clone(),
        symlinks: args.symlinks,
        times: args.times,
    }
}

pub(super) async fn scan_all<'a>(
    paths: &'a [PathBuf],
    args: &Args,
) -> Result<Vec<(&'a PathBuf, Scan)>, Failure> {
    let mut scans = Vec::with_capacity(paths.len());
    for path in paths {
        scans.push((path, scan(path, args.name.clone(), rules(args), Output::of(args.json)).await?));
    }
    Ok(scans)
}

/// Finds the files of a share, on a blocking thread: there may be many, on a slow disk.
pub(super) async fn scan(
    path: &Path,
    name: Option<ShareName>,
    rules: ScanRules,
    output: Output,
) -> Result<Scan, Failure> {
    let found = path.to_owned();
    let scanned = tokio::task::spawn_blocking(move || Scan::new(&found, name, &rules));
    let scan = scanned.await.map_err(|error| Failure::new(ExitCode::Other, error))?;
    let scan = scan.map_err(|error| explain(error.into()))?;
    let LeftOut { first, count } = scan.left_out();
    if *count > 0 {
        let first: Vec<_> =
            first.iter().map(|(path, kind)| format!("'{}' ({kind})", path.display())).collect();
        let more = count - first.len() as u64;
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let message = format!("left out of '{}': {}{more}", path.display(), first.join(", "));
        tracing::warn!("{message}");
        if output == Output::Json {
            print_event(&Event::Warning { kind: "left_out", message });
        }
    }
    Ok(scan)
}

pub(super) async fn hash(
    path: &Path,
    scan: Scan,
    cache: Option<Arc<HashCache>>,
    output: Output,
    shutdown: CancellationToken,
) -> Result<Shared, Failure> {
    let meter = ByteMeter::new(path.display().to_string(), output);
    meter.set_total(scan.total_len());
    let hashed = tokio::task::spawn_blocking(move || {
        let progress = |bytes| {
            meter.add(bytes);
            if shutdown.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        scan.hash(cache.as_deref(), &progress)
    });
    hashed.await.map_err(|error| Failure::new(ExitCode::Other, error))?.map_err(explain)
}

fn explain(error: ShareError) -> Failure {
    let (code, hint) = match &error {
        ShareError::Scan(ScanError::Special { .. }) => {
            (ExitCode::Io, "only files and directories can be shared")
        }
        ShareError::Scan(ScanError::Name { .. }) => (
            ExitCode::Io,
            "rename it, or leave it out with --exclude; --name changes the name of the share itself",
        ),
        ShareError::Scan(ScanError::TooDeep(_)) => (ExitCode::Io, "share a directory further down"),
        ShareError::Scan(ScanError::Path(_)) | ShareError::Path(_) => {
            (ExitCode::Io, "check the path and its read permission")
        }
        ShareError::Changed(_) => (ExitCode::Io, "wait until nothing writes to it, and start again"),
        ShareError::Metainfo(_) | ShareError::TooLarge(_) => (ExitCode::Io, "share it in several parts"),
        ShareError::Hashes(_) => (ExitCode::Integrity, "try again with --no-cache"),
        ShareError::Stopped(_) => {
            return Failure::new(ExitCode::Interrupted, "stopped before anything was shared");
        }
        _ => return Failure::new(ExitCode::Other, error),
    };
    Failure::new(code, error).hint(hint)
}

/// The hash cache, unless the user wants none.
pub(super) fn cache(args: &Args) -> Option<Arc<HashCache>> {
    if args.no_cache { None } else { open_cache(args.cache_dir.clone()).map(Arc::new) }
}

fn open_cache(dir: Option<PathBuf>) -> Option<HashCache> {
    let dir = dir.or_else(|| Some(choose_base_strategy().ok()?.cache_dir().join("shoal").join("hashes")))?;
    match HashCache::open(dir.clone()) {
        Ok(cache) => Some(cache),
        Err(error) => {
            tracing::warn!("no hash cache: {}: {error}", dir.display());
            None
        }
    }
}
