//! Lists what a tracker knows: `cargo run --release --example list -- [TRACKER]`.

use anyhow::Result;
use shoal::{Endpoint, Node};

#[tokio::main]
async fn main() -> Result<()> {
    let tracker = Endpoint::parse_tracker(&std::env::args().nth(1).unwrap_or("127.0.0.1".to_owned()))?;
    for share in Node::builder().tracker(tracker).build().list().await? {
        // Names are chosen by others: `{:?}` escapes what a terminal would act on.
        println!(
            "{} {:?}: {} bytes, {} seeders",
            share.infohash,
            share.name.as_str(),
            share.size,
            share.seeders
        );
    }
    Ok(())
}
