//! What a download that has ended well leaves for the next one: a record of the files that it proved ([`crate::proofs`]).

use std::{sync::OnceLock, time::SystemTime};

use rustix::fs::FileType;

use super::Download;
use crate::{
    cache::is_settled,
    cores::on_all_cores,
    error::{AtPath, PathError},
    existing::{Existing, Found},
    identity::FileState,
    linked::{Dirs, LINK_RUN},
    resume::ResumeFile,
};

impl Download {
    /// Records what this download has proved. Its files were changed just now, or got their names. So the resume file's time decides
    /// whether a later change of a file will have another time than what is recorded. A failure only costs time later.
    pub(super) fn remember(&self, resume: &ResumeFile) {
        let Some(proofs) = self.output.proofs() else { return };
        let now = resume.tick().at("set the time of", &self.output.resume_path());
        match now.and_then(|now| self.states(&now)) {
            Ok(states) => proofs.save(self.output.path(), &self.metainfo, &self.hashes, &states),
            Err(error) => tracing::debug!("what was proved is not remembered: {error}"),
        }
    }

    /// Records what was there before, and is right. `begun` is when it was looked at.
    pub(super) fn remember_existing(&self, existing: &Existing, begun: SystemTime) {
        let Some(proofs) = self.output.proofs() else { return };
        let settled = |found: &Found| {
            let FileState { identity, changed } = found.state;
            is_settled(identity.mtime_s.max(changed.s), begun).then_some(found.state)
        };
        let states: Vec<_> = existing.files.iter().map(|found| found.as_ref().and_then(settled)).collect();
        proofs.save(self.output.path(), &self.metainfo, &self.hashes, &states);
    }

    /// What the files are that last changed before `now`.
    pub(super) fn states(&self, now: &FileState) -> Result<Vec<Option<FileState>>, PathError> {
        let files: Vec<usize> = self.wanted.positions().collect();
        let states: Vec<OnceLock<FileState>> =
            self.metainfo.files().iter().map(|_| OnceLock::new()).collect();
        on_all_cores(&files, LINK_RUN, || {
            let (mut dirs, states) = (Dirs::new(&self.part), &states);
            move |&file: &usize| {
                let entry = &self.metainfo.files()[file];
                let Some(stat) = dirs.examine(entry)? else { return Ok(()) };
                let state = FileState::of_stat(&stat);
                let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
                let published = self.finished.get().and_then(|files| files[file].get());
                let is_proved = published.is_none_or(|published| *published == state.identity);
                let is_whole = is_file && state.identity.len == entry.node.len;
                let is_here = state.identity.device == now.identity.device;
                if is_proved && is_whole && is_here && state.changed < now.changed {
                    let _ = states[file].set(state);
                }
                Ok(())
            }
        })?;
        Ok(states.into_iter().map(OnceLock::into_inner).collect())
    }
}
