//! The whole system on localhost: a tracker, seeders and leechers in this process, over real sockets and files.
//!
//! One file per behaviour, on top of three nouns: a [`swarm::Swarm`] runs the roles of a test and ends them, a
//! [`proxy::Proxy`] stands between a leecher and a seeder and makes the network (or the seeder) misbehave at a
//! chosen byte, and a [`fetch::Fetch`] is a transfer under way with everything that it has told so far.
//!
//! What every test keeps to: no sleeps and no time measured, every wait is for something that happens; ports are
//! the system's choice; nothing is shared between tests; a test that hangs fails after [`swarm::TEST_TIMEOUT`].
//! They are modules of one program rather than programs of their own, so that all of the above is compiled and
//! linked once.

mod fetch;
mod proxy;
mod source;
mod stranger;
mod swarm;

mod backing_off;
mod by_the_page;
mod changed_files;
mod departures;
mod descriptions;
mod garbage;
mod liars;
mod outputs;
mod restarts;
mod resuming;
mod seeders;
mod shapes;
mod silence;
mod slow_peers;
mod targets;
mod waiting;
