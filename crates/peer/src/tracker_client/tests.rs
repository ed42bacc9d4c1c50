use std::{collections::BTreeSet, future::pending};

use tokio::task::yield_now;
use tracker::Tracker;

use super::*;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

const LIST: Call = Call::Lookup(Query::List { after: None });

#[tokio::test]
async fn an_address_that_no_socket_can_be_opened_to_is_skipped() {
    // The system refuses to connect to the broadcast address by default.
    let closed: SocketAddr = "255.255.255.255:6020".parse().unwrap();
    let open: SocketAddr = "127.0.0.1:6020".parse().unwrap();
    assert!(open_first(&[closed], None).await.is_err());
    assert!(open_first(&[], None).await.is_err());
    for (addresses, skips) in [(vec![closed, closed, open], 2), (vec![open, closed], 0)] {
        let (skipped, (_, address)) = open_first(&addresses, None).await.unwrap();
        assert_eq!((skipped, address), (skips, open));
    }
}

/// The call that the first address refused is answered at the second.
#[tokio::test]
async fn a_call_goes_on_at_the_next_address_if_the_first_refuses_it() {
    // It receives only from the other socket, and no other program can have its port.
    let refusing = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
    let other = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
    refusing.connect(other.local_addr().unwrap()).await.unwrap();
    let (jobs, queue) = mpsc::channel(QUEUE_LEN);
    let (worker, first) = (Worker::new(nowhere(), None), refusing.local_addr().unwrap());
    let (address, second) = beside_a_tracker(worker, queue, first, list(&jobs)).await;
    assert_eq!(address, second);
}

/// The call itself is answered there: it does not have to fail first.
#[tokio::test]
async fn the_next_address_is_asked_when_the_first_has_not_answered() {
    let silent = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
    let (jobs, queue) = mpsc::channel(QUEUE_LEN);
    let first = silent.local_addr().unwrap();
    let worker = Worker::new(nowhere(), None);
    let (address, second) = beside_a_tracker(worker, queue, first, list(&jobs)).await;
    assert_eq!(address, second);
}

/// With no address left to try, requests are sent at the pace of a call. Both refuse at once.
#[tokio::test]
async fn addresses_that_all_refuse_are_not_asked_without_pause() {
    let refusing =
        [UdpSocket::bind((LOCALHOST, 0)).await.unwrap(), UdpSocket::bind((LOCALHOST, 0)).await.unwrap()];
    let [a, b] = [refusing[0].local_addr().unwrap(), refusing[1].local_addr().unwrap()];
    // Each receives from the other only.
    refusing[0].connect(b).await.unwrap();
    refusing[1].connect(a).await.unwrap();
    let (jobs, queue) = mpsc::channel(QUEUE_LEN);
    let resolved = std::cell::Cell::new(0);
    let work = Worker::new(nowhere(), None).run(queue, async || {
        resolved.set(resolved.get() + 1);
        Ok(vec![a, b])
    });
    let (result, outcome) = oneshot::channel();
    jobs.send(Job { call: LIST, result }).await.unwrap_or_else(|_| unreachable!("the queue is open"));
    tokio::select! {
        _ = outcome => {}
        () = work => panic!("the worker ended"),
    }
    assert!(resolved.get() < 20, "asked {} times", resolved.get());
}

#[tokio::test]
async fn addresses_that_failed_are_tried_last_in_whichever_order_the_name_server_returns_them() {
    let [a, b, c] = [1, 2, 3].map(|host| SocketAddr::from(([127, 0, 0, host], 6020)));
    let mut worker = Worker::new(nowhere(), None);
    let mut tried = Vec::new();
    let orders = std::cell::RefCell::new([vec![a, b, c], vec![c, b, a], vec![b, a, c]].into_iter().cycle());
    for _ in 0..9 {
        worker.resolve(&async || Ok(orders.borrow_mut().next().unwrap())).await.unwrap();
        let (_, address) = worker.open_socket().await.unwrap();
        worker.note_failed(address);
        tried.push(address);
    }
    assert_eq!(tried, [a, b, c, a, b, c, a, b, c]);
    worker.failed.retain(|&failed| failed != b);
    worker.resolve(&async || unreachable!("an address has yet to be tried")).await.unwrap();
    assert_eq!(worker.open_socket().await.unwrap().1, b);
}

/// A name server may return any number.
#[tokio::test]
async fn a_name_with_many_addresses_is_tried_at_the_first_ones_only() {
    let all: Vec<_> = (1..=100).map(|host| SocketAddr::from(([127, 0, 0, host], 6020))).collect();
    let mut worker = Worker::new(nowhere(), None);
    let mut tried = BTreeSet::new();
    for _ in 0..3 * MAX_RESOLVED {
        worker.resolve(&async || Ok(all.clone())).await.unwrap();
        let (_, address) = worker.open_socket().await.unwrap();
        worker.note_failed(address);
        tried.insert(address);
    }
    assert_eq!(tried.into_iter().collect::<Vec<_>>(), all[..MAX_RESOLVED]);
}

#[tokio::test]
async fn calls_beyond_the_maximum_wait_in_the_queue() {
    const MORE: usize = 9;
    let silent = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
    let (jobs, queue) = mpsc::channel(MAX_CALLS + MORE);
    let call = |_| {
        let (result, outcome) = oneshot::channel();
        jobs.try_send(Job { call: LIST, result }).unwrap_or_else(|_| unreachable!("there is room"));
        outcome
    };
    let _outcomes: Vec<_> = (0..MAX_CALLS + MORE).map(call).collect();
    let address = silent.local_addr().unwrap();
    let work = Worker::new(nowhere(), None).run(queue, async || Ok(vec![address]));
    let in_queue = || jobs.max_capacity() - jobs.capacity();
    let looking = async {
        while in_queue() > MORE {
            yield_now().await;
        }
        for _ in 0..1_000 {
            yield_now().await;
        }
        assert_eq!(in_queue(), MORE);
    };
    tokio::select! {
        looked = timeout(Duration::from_secs(60), looking) => looked.expect("it takes calls"),
        () = work => panic!("the worker ended"),
    }
}

#[tokio::test]
async fn it_ends_with_its_clients_although_the_name_is_still_being_resolved() {
    let tasks = TaskTracker::new();
    let (resolving, mut resolves) = mpsc::channel(1);
    let resolve = async move || {
        resolving.send(()).await.unwrap();
        pending().await
    };
    let (calls, jobs) = mpsc::channel(QUEUE_LEN);
    let working = Worker::new(nowhere(), None).run(jobs, resolve);
    let client = TrackerClient::with(nowhere(), calls, working, &tasks);
    tokio::select! {
        _ = client.shares(Query::List { after: None }) => panic!("there is no answer"),
        begun = resolves.recv() => begun.unwrap(),
    }
    drop(client);
    tasks.close();
    timeout(Duration::from_secs(60), tasks.wait()).await.expect("the task goes on");
}

#[tokio::test]
async fn a_tracker_answers_and_a_silent_socket_does_not() {
    let config = tracker::Config { bind: Some(LOCALHOST), port: 0, ..tracker::Config::default() };
    let tracker = Tracker::bind(config).await.unwrap();
    let silent = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let client = |address: SocketAddr| TrackerClient::spawn(address.into(), None, &tasks);
    let (there, nobody) = (client(tracker.local_addr()), client(silent.local_addr().unwrap()));
    let running = tokio::spawn(tracker.run(stop.clone()));
    assert!(there.answers(Duration::from_secs(60)).await);
    assert!(!nobody.answers(Duration::from_millis(10)).await);
    stop.cancel();
    running.await.unwrap().unwrap();
}

fn nowhere() -> Arc<Endpoint> {
    Arc::new(Endpoint { host: "tracker.invalid".to_owned(), port: 6020 })
}

/// Looks up all shares. Returns the address that answered.
async fn list(jobs: &mpsc::Sender<Job>) -> SocketAddr {
    let (result, outcome) = oneshot::channel();
    assert!(jobs.send(Job { call: LIST, result }).await.is_ok());
    let (_, address) = outcome.await.unwrap().map_err(|_| "no answer").unwrap();
    address
}

/// Runs a worker until there is an answer. The tracker's name has the address `first` and another one, where the tracker
/// is. Returns the address that answered, and that other address.
async fn beside_a_tracker(
    worker: Worker,
    queue: mpsc::Receiver<Job>,
    first: SocketAddr,
    asked: impl Future<Output = SocketAddr>,
) -> (SocketAddr, SocketAddr) {
    let config = tracker::Config { bind: Some(LOCALHOST), port: 0, ..tracker::Config::default() };
    let tracker = Tracker::bind(config).await.unwrap();
    let second = tracker.local_addr();
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let running = tasks.spawn(tracker.run(stop.clone()));
    let work = worker.run(queue, async || Ok(vec![first, second]));
    let address = tokio::select! {
        address = asked => address,
        () = work => panic!("the worker ended before the answer came"),
    };
    stop.cancel();
    running.await.unwrap().unwrap();
    (address, second)
}
