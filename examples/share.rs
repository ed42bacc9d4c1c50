//! Shares a file or directory until Ctrl-C: `cargo run --release --example share -- PATH [TRACKER]`.

use anyhow::{Context, Result};
use shoal::{Endpoint, Node, ShareEvent, StreamExt};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().context("usage: share PATH [TRACKER]")?;
    let tracker = Endpoint::parse_tracker(&arguments.next().unwrap_or("127.0.0.1".to_owned()))?;
    let mut share = Node::builder().tracker(tracker).build().share(path.as_str()).await?;
    println!("{}", share.link());
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            Some(event) = share.events().next() => match event {
                ShareEvent::Registered { tracker, .. } => println!("registered with {tracker}"),
                ShareEvent::NotRegistered(error) => eprintln!("not registered: {error}"),
                ShareEvent::Withdrawn(error) => eprintln!("no longer registered: {error}"),
                _ => {}
            },
            else => break,
        }
    }
    println!("sent {} bytes", share.stop().await);
    Ok(())
}
