//! `--list-files`: the files of shares.

use leecher::Description;
use proto::{ShareName, metainfo::FileEntry};
use startup::{HumanBytes, print_json_line, print_line};
use store::{DownloadError, FilePattern, Wanted, path_in_share};

/// Prints the files that the patterns match, or all of them if there are none, and the empty directories.
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
    let directories = directories.iter().map(|path| {
        let names: Vec<_> = path.iter().map(ShareName::as_str).collect();
        (format!("{}/", names.join("/")), 0)
    });
    for (path, size) in files.chain(directories) {
        if is_json {
            let infohash = metainfo.infohash().to_string();
            let entry = serde_json::json!({ "infohash": infohash, "path": path, "size": size });
            print_json_line(&entry.to_string());
        } else {
            print_line(format_args!("{:>10}  {path}", HumanBytes(size).to_string()));
        }
    }
    Ok(())
}
