//! Fetches a share into the working directory: `cargo run --release --example fetch -- LINK|INFOHASH|NAME [TRACKER]`.

use anyhow::{Context, Result};
use shoal::{Endpoint, FetchEvent, Node, StreamExt, Target};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let target: Target = arguments.next().context("usage: fetch LINK|INFOHASH|NAME [TRACKER]")?.parse()?;
    let tracker = Endpoint::parse_tracker(&arguments.next().unwrap_or("127.0.0.1".to_owned()))?;
    let mut fetch = Node::builder().tracker(tracker).build().fetch(target);
    while let Some(event) = fetch.events().next().await {
        match event {
            FetchEvent::Waiting(waiting) => println!("{waiting}"),
            FetchEvent::Progress(progress) => {
                println!("{} of {} bytes", progress.done, progress.total);
            }
            _ => {}
        }
    }
    println!("saved to {}", fetch.finished().await?.path.display());
    Ok(())
}
