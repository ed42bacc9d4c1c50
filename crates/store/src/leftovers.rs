//! Parts that earlier runs left and that are of no use any more.
//!
//! Only a part beside which there is a resume file of Shoal's is ever removed, and only if no other process has it locked.

use std::io;

use proto::{Bitfield, Metainfo, metainfo::Kind};

use crate::{
    disk,
    error::{AtPath, DownloadError},
    output::Output,
    part::Part,
    resume::{self, Resume},
};

/// Removes an unfinished download of another version, or the old version that a run exchanged for that and had no time to remove.
pub(crate) fn clear_other_version(output: &Output, metainfo: &Metainfo) -> Result<(), DownloadError> {
    match load(output, metainfo)? {
        Resume::OtherShare => clear(output),
        _ => Ok(()),
    }
}

/// Removes what a run left that gave the share its name and was ended then: the old version, or claims. `right` is in the output, so a
/// part with no other chunk is of no use. A failure does no harm.
pub(crate) fn clear_finished(output: &Output, metainfo: &Metainfo, right: &Bitfield) {
    let cleared = match load(output, metainfo) {
        Ok(Resume::Claims(_, claims)) if claims.iter().all(|chunk| right.contains(chunk)) => clear(output),
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = cleared {
        tracing::debug!("leaves {}: {error}", output.part_path().display());
    }
}

fn load(output: &Output, metainfo: &Metainfo) -> Result<Resume, DownloadError> {
    let chunk_count = metainfo.chunk_space().chunk_count();
    Ok(resume::load(&output.resume_path(), metainfo.infohash(), chunk_count)?)
}

fn clear(output: &Output) -> Result<(), DownloadError> {
    let path = output.part_path();
    let kind = match disk::examine(&path) {
        Ok(meta) if meta.is_dir() => Some(Kind::Directory),
        Ok(_) => Some(Kind::File),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).at("examine", &path)?,
    };
    if let Some(kind) = kind {
        // Locked, so that no other process is writing to it.
        let _part = Part::open(path.clone(), kind)?;
        remove(output, kind)?;
    }
    disk::remove(&output.resume_path()).at("remove", &output.resume_path())?;
    Ok(())
}

/// Removes what has the part's name, for good.
pub(crate) fn remove(output: &Output, kind: Kind) -> Result<(), DownloadError> {
    let path = output.part_path();
    let removed = match kind {
        Kind::File => disk::remove(&path),
        Kind::Directory => disk::remove_tree(&path),
    };
    removed.at("remove", &path)?;
    disk::sync_parent(&path).at("sync the directory of", &path)?;
    Ok(())
}
