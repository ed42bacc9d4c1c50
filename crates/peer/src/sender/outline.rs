//! Sends the outline of the metainfo, and sections of it.

use std::{io, sync::Arc};

use proto::{
    outline::{Outline, SectionSet},
    peer::{MAX_SUMS, PeerMessage},
};

use super::{Sender, encode, serving, to_u32};

impl Sender {
    /// Sends the sums of sections from this one on.
    pub(super) async fn put_outline(&mut self, first: u32) -> io::Result<()> {
        self.with_outline(|outline, _, pending| {
            let sums = outline.sums().get(first as usize..).filter(|sums| !sums.is_empty())?;
            let part = &sums[..sums.len().min(MAX_SUMS as usize)];
            let sections = to_u32(outline.sums().len());
            let message = PeerMessage::Outline { sections, first, count: to_u32(part.len()) };
            let encoded = encode(&message, pending);
            pending.extend_from_slice(part.as_flattened());
            Some(encoded)
        })
        .await
    }

    /// Sends sections.
    pub(super) async fn put_sections(&mut self, set: SectionSet) -> io::Result<()> {
        self.with_outline(|outline, bytes, pending| {
            let ranges = set.sections().map(|section| outline.range(section)).collect::<Option<Vec<_>>>()?;
            let len = to_u32(ranges.iter().map(ExactSizeIterator::len).sum());
            let encoded = encode(&PeerMessage::Sections { set, len }, pending);
            ranges.into_iter().for_each(|range| pending.extend_from_slice(&bytes[range]));
            Some(encoded)
        })
        .await
    }

    /// Appends what `put` makes of the outline and the metainfo. It is `None` if the peer asked for sections that there are not.
    async fn with_outline(
        &mut self,
        put: impl FnOnce(&Outline, &[u8], &mut bytes::BytesMut) -> Option<io::Result<()>>,
    ) -> io::Result<()> {
        let content = Arc::clone(&serving(&self.serve)?.content);
        if content.metainfo().outline_if_made().is_none() {
            // What is ready does not wait for it.
            self.flush().await?;
            let content = Arc::clone(&content);
            let made = tokio::task::spawn_blocking(move || _ = content.metainfo().outline());
            made.await.map_err(io::Error::other)?;
        }
        let metainfo = content.metainfo();
        put(metainfo.outline(), metainfo.as_bytes(), &mut self.pending)
            .unwrap_or_else(|| Err(io::Error::other("asked for sections that there are not")))
    }
}
