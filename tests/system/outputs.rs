//! Outputs that exist already.

use std::{fs, path::PathBuf};

use shoal::{DownloadError, FetchError, FetchEvent, Target};

use crate::{
    fetch::Plan,
    proxy::Manner,
    source::{MIB, names_in},
    swarm::test,
};

/// A plan to save at a path where there is a file already.
fn occupied(plan: Plan) -> (Plan, PathBuf) {
    let path = plan.directory.join("mine.txt");
    fs::write(&path, "precious").unwrap();
    (plan.with(|fetch| fetch.output(&path)), path)
}

#[test]
fn what_is_there_is_not_replaced_unasked() {
    test(async |swarm| {
        let source = swarm.share("theirs.txt", 2 * MIB);
        swarm.seed(&source).await;
        let link = source.link(vec![swarm.tracker()], Vec::new());
        for target in [Target::InfoHash(source.infohash()), "theirs.txt".parse().unwrap(), Target::Link(link)]
        {
            let (plan, path) = occupied(swarm.plan_for(target));
            let mut fetch = swarm.fetch(plan);
            let outcome = fetch.outcome().await;
            assert!(
                matches!(&outcome, Err(FetchError::Download(DownloadError::OutputDiffers { path: at, .. })) if *at == path),
                "{outcome:?}"
            );
            assert_eq!(fs::read(&path).unwrap(), b"precious");
            assert_eq!(names_in(path.parent().unwrap()), ["mine.txt"]);
            assert!(!fetch.story().iter().any(|event| matches!(event, FetchEvent::Started(_))));
        }
    });
}

/// The old file stays until the new one is whole.
#[test]
fn what_is_there_is_replaced_where_that_is_wanted() {
    test(async |swarm| {
        let source = swarm.share("theirs.txt", 4 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let proxy = swarm.proxy(&seeder, Manner::Honest).await;
        let (plan, path) = occupied(swarm.plan(&source, &[proxy.address]));
        let mut fetch = swarm.fetch(plan.with(shoal::Fetch::overwrite));
        proxy.allow(2 * MIB);
        fetch.done(MIB).await;
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        proxy.open();
        source.assert_fetched(&fetch.fetched().await);
    });
}

/// Somebody else takes the name during the transfer.
#[test]
fn what_comes_to_be_there_meanwhile_is_not_replaced() {
    test(async |swarm| {
        let source = swarm.share("theirs.txt", 4 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let proxy = swarm.proxy(&seeder, Manner::Honest).await;
        let plan = swarm.plan(&source, &[proxy.address]);
        let mut fetch = swarm.fetch(plan);
        let output = fetch.started().await.output;
        fs::write(&output, "precious").unwrap();
        proxy.open();
        let outcome = fetch.outcome().await;
        assert!(
            matches!(&outcome, Err(FetchError::Download(DownloadError::OutputExists(at))) if *at == output),
            "{outcome:?}"
        );
        assert_eq!(fs::read(&output).unwrap(), b"precious");
    });
}

#[test]
fn two_leechers_do_not_write_one_output() {
    test(async |swarm| {
        let source = swarm.share("single.bin", 4 * MIB);
        let seeder = swarm.seed_unannounced(&source).await;
        let proxy = swarm.proxy(&seeder, Manner::Honest).await;
        let plan = swarm.plan(&source, &[proxy.address]);
        let mut first = swarm.fetch(plan.clone());
        first.started().await;
        let outcome = swarm.fetch(plan).outcome().await;
        assert!(matches!(&outcome, Err(FetchError::Download(DownloadError::Locked(_)))), "{outcome:?}");
        proxy.open();
        source.assert_fetched(&first.fetched().await);
    });
}
