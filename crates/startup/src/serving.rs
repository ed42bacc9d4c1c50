//! A line about what is served to others.

use serde::Serialize;

use crate::{
    console::{columns, cut},
    escape::escape,
    human::HumanBytes,
};

/// Columns of a share's name that are shown at least.
const MIN_NAME: usize = 12;

/// A share that is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Served {
    /// Its id.
    pub infohash: String,
    /// Its name.
    pub name: String,
    /// Bytes in it.
    pub size: u64,
    /// Connected peers that may ask for chunks.
    pub peers: usize,
    /// Bytes of its chunks that were sent.
    pub sent: u64,
    /// Bytes a second now.
    pub rate: u64,
}

impl Served {
    /// How often the share was sent, whole or in parts.
    pub fn copies(&self) -> f64 {
        if self.size == 0 { 0.0 } else { self.sent as f64 / self.size as f64 }
    }
}

/// What is served, in a line of at most `width` columns: as much as fits.
pub fn serving_line(width: usize, shares: &[Served]) -> String {
    let peers = match shares.iter().map(|share| share.peers).sum() {
        0 => "no peers".to_owned(),
        1 => "1 peer".to_owned(),
        many => format!("{many} peers"),
    };
    let rate = HumanBytes(shares.iter().fold(0, |rate, share| rate.saturating_add(share.rate)));
    let now = format!("{peers}, {rate}/s");
    let fits = |line: &String| columns(line) <= width;
    if let [share] = shares {
        let copies = format!("{:.2} copies sent", share.copies());
        let sent = format!("{now}, {copies} ({})", HumanBytes(share.sent));
        for beside in [sent, format!("{now}, {copies}")] {
            // The name is cut before anything else is left out.
            let room = width.saturating_sub(columns("Seeding : ") + columns(&beside));
            let name = cut(&escape(&share.name), room.max(MIN_NAME));
            if let Some(line) = Some(format!("Seeding {name}: {beside}")).filter(fits) {
                return line;
            }
        }
        return cut(&now, width);
    }
    let mut sent: Vec<_> = shares.iter().collect();
    sent.sort_by(|a, b| b.copies().total_cmp(&a.copies()).then_with(|| a.name.cmp(&b.name)));
    let names = |count: usize| {
        let first = sent.iter().take(count);
        let mut list: Vec<_> =
            first.map(|share| format!("{} {:.2}", escape(&share.name), share.copies())).collect();
        list.extend(
            sent.len().checked_sub(count).filter(|&more| more > 0).map(|more| format!("{more} more")),
        );
        format!("Seeding {} shares: {now}; copies sent: {}", shares.len(), list.join(", "))
    };
    let short = format!("Seeding {} shares: {now}", shares.len());
    let most = sent.len().min(width);
    let line = (1..=most).rev().map(names).find(fits).or(Some(short).filter(fits));
    line.unwrap_or_else(|| cut(&now, width))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(name: &str, sent: u64) -> Served {
        Served {
            infohash: String::new(),
            name: name.to_owned(),
            size: 1 << 30,
            peers: 6,
            sent,
            rate: 17 << 20,
        }
    }

    #[test]
    fn the_line_has_as_much_as_fits() {
        let one = [served("disk.img", 3 << 30)];
        assert_eq!(
            serving_line(usize::MAX, &one),
            "Seeding disk.img: 6 peers, 17.00 MiB/s, 3.00 copies sent (3.00 GiB)"
        );
        assert_eq!(serving_line(60, &one), "Seeding disk.img: 6 peers, 17.00 MiB/s, 3.00 copies sent");
        let two = [served("b.iso", 0), served("a.iso", 1 << 31)];
        assert_eq!(
            serving_line(78, &two),
            "Seeding 2 shares: 12 peers, 34.00 MiB/s; copies sent: a.iso 2.00, b.iso 0.00"
        );
        assert_eq!(
            serving_line(75, &two),
            "Seeding 2 shares: 12 peers, 34.00 MiB/s; copies sent: a.iso 2.00, 1 more"
        );
        assert_eq!(serving_line(60, &two), "Seeding 2 shares: 12 peers, 34.00 MiB/s");
        let long = [served(&"データ".repeat(20), 1), served("\u{202e}x", 1)];
        for width in 1..120 {
            for shares in [&one[..], &two, &long, &long[..1], &long[1..]] {
                let line = serving_line(width, shares);
                assert!(columns(&line) <= width, "{width}: {line}");
            }
        }
        assert!(serving_line(78, &long[1..]).contains(r"\u{202e}x"));
    }
}
