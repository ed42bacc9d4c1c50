//! `--list-files`: the files of shares.

use leecher::Description;
use proto::{ShareName, metainfo::FileEntry};
use startup::{HumanBytes, print_json_line, print_line};
use store::{DownloadError, FilePattern, Wanted, path_in_share};

/// Prints the files that the patterns match, or all of them if there are none, the empty directories, and the links.
pub(crate) fn print(
    description: &Description,
    only: &[FilePattern],
    is_json: bool,
) -> Result<(), DownloadError> {
    let metainfo = &description.metainfo;
    let wanted = Wanted::of(metainfo, only)?;
    let files = wanted.files(metainfo);
    let files = files.iter().map(|entry: &FileEntry| (path_in_share(metainfo, entry), entry.node.len));
    let directories = wanted.empty_directories(metainfo);
    let joined = |path: &[ShareName]| path.iter().map(ShareName::as_str).collect::<Vec<_>>().join("/");
    let directories = directories.iter().map(|path| (format!("{}/", joined(path)), 0));
    let links = wanted.links(metainfo);
    let links = links.iter().map(|link| (joined(&link.path), 0, Some(link.text())));
    let entries = files.chain(directories).map(|(path, size)| (path, size, None)).chain(links);
    for (path, size, link) in entries {
        let mut entry = serde_json::json!({
            "infohash": metainfo.infohash().to_string(), "path": path, "size": size,
        });
        match (is_json, link) {
            (true, None) => print_json_line(&entry.to_string()),
            (true, Some(link)) => {
                entry["link"] = link.into();
                print_json_line(&entry.to_string());
            }
            (false, None) => print_line(format_args!("{:>10}  {path}", HumanBytes(size).to_string())),
            (false, Some(link)) => print_line(format_args!("{:>10}  {path} -> {link}", "link")),
        }
    }
    Ok(())
}
