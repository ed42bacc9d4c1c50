//! `--list-files`: the files of shares.

use leecher::Description;
use proto::{ShareName, metainfo::FileEntry};
use startup::{
    HumanBytes, Output,
    json::{Event, print_event, print_event_of},
    print_line,
};
use store::{DownloadError, FilePattern, Wanted, path_in_share};

/// Prints the files that the patterns match, or all of them if there are none, the empty directories, and the links. `target` is what
/// the user asked for, if that is one of several.
pub(crate) fn print(
    description: &Description,
    only: &[FilePattern],
    output: Output,
    target: Option<&str>,
) -> Result<(), DownloadError> {
    let metainfo = &description.metainfo;
    let wanted = Wanted::of(metainfo, only)?;
    let files = wanted.files(metainfo);
    let files = files.iter().map(|entry: &FileEntry| (path_in_share(metainfo, entry), entry.node.len));
    let directories = wanted.empty_directories(metainfo);
    let joined = |path: &[ShareName]| path.iter().map(ShareName::as_str).collect::<Vec<_>>().join("/");
    let directories = directories.iter().map(|path| (format!("{}/", joined(path)), 0));
    let links = wanted.links(metainfo);
    let links = links.iter().map(|link| (joined(&link.path), 0, Some(link.text().to_string())));
    let entries = files.chain(directories).map(|(path, size)| (path, size, None)).chain(links);
    let infohash = metainfo.infohash().to_string();
    for (path, size, link) in entries {
        match (output, link) {
            (Output::Json, link) => {
                let event = Event::File { infohash: &infohash, path: &path, size, link: link.as_deref() };
                match target {
                    Some(target) => print_event_of(target, &event),
                    None => print_event(&event),
                }
            }
            (Output::Text, None) => print_line(format_args!("{:>10}  {path}", HumanBytes(size).to_string())),
            (Output::Text, Some(link)) => print_line(format_args!("{:>10}  {path} -> {link}", "link")),
        }
    }
    Ok(())
}
