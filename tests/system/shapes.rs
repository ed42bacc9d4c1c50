//! Files of every interesting size, and directories.

use std::fs;

use crate::{
    source::{CHUNK, KIB, content},
    swarm::test,
};

#[test]
fn files_of_every_size_arrive() {
    test(async |swarm| {
        for len in [
            0,
            1,
            16 * KIB - 1,
            16 * KIB,
            16 * KIB + 1,
            CHUNK - 1,
            CHUNK,
            CHUNK + 1,
            2 * CHUNK,
            3 * CHUNK + 16 * KIB + 1,
        ] {
            let source = swarm.share("some.bin", len);
            let seeder = swarm.seed_unannounced(&source).await;
            let plan = swarm.plan(&source, &[seeder.address]);
            source.assert_fetched(&swarm.fetch(plan).fetched().await);
        }
    });
}

#[test]
fn a_directory_arrives_with_all_that_is_in_it() {
    test(async |swarm| {
        let source = swarm.share_directory("Größe und 大きさ", |root| {
            for dir in ["a/b/c", "nothing/in/here", "空"] {
                fs::create_dir_all(root.join(dir)).unwrap();
            }
            for (seed, (name, len)) in [
                ("a/b/c/deep.bin", 5 * CHUNK + 3),
                ("a/b/empty", 0),
                ("a/b.txt", 1),
                ("a-b", CHUNK),
                ("a.b", CHUNK + 1),
                ("空/🐟 & chips", 2 * CHUNK - 1),
                ("-rf *", 16 * KIB),
                ("with\"quotes'", 77),
            ]
            .into_iter()
            .enumerate()
            {
                fs::write(root.join(name), content(len, seed as u64)).unwrap();
            }
        });
        for _ in 0..2 {
            swarm.seed(&source).await;
        }
        let plan = swarm.plan_for(source.name());
        source.assert_fetched(&swarm.fetch(plan).fetched().await);
    });
}

#[test]
fn a_directory_of_many_small_files_arrives() {
    test(async |swarm| {
        let source = swarm.share_directory("photos", |root| {
            for index in 0..1_000 {
                let dir = root.join(format!("{}", index % 7));
                fs::create_dir_all(&dir).unwrap();
                fs::write(dir.join(format!("{index}.jpg")), content(index * 3, index)).unwrap();
            }
        });
        swarm.seed(&source).await;
        let plan = swarm.plan_for(source.name());
        source.assert_fetched(&swarm.fetch(plan).fetched().await);
    });
}

#[test]
fn an_empty_directory_arrives() {
    test(async |swarm| {
        let source = swarm.share_directory("void", |_| ());
        swarm.seed(&source).await;
        let plan = swarm.plan_for(source.name());
        source.assert_fetched(&swarm.fetch(plan).fetched().await);
    });
}
