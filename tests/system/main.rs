//! The whole system on localhost: a tracker, seeders and leechers in this process, over real sockets and files.
//!
//! They run on the crate `shoal`, as in a program that embeds it. Peers that misbehave are written by hand, on `proto`.
//!
//! One file per behaviour, on top of three nouns. A [`swarm::Swarm`] runs the roles of a test and ends them. A
//! [`proxy::Proxy`] stands between a leecher and a seeder and makes the network (or the seeder) misbehave at a chosen byte.
//! A [`fetch::Fetch`] is a transfer under way with everything that it has reported so far.
//!
//! Rules for every test: it does not sleep or measure time, and each wait is for something that happens. The system chooses
//! the ports. Tests share nothing. A test that hangs fails after [`swarm::TEST_TIMEOUT`]. They are modules of one program
//! rather than programs of their own, so all of the above is compiled and linked once.

mod fetch;
mod proxy;
mod source;
mod stranger;
mod swarm;

mod attacked;
mod backing_off;
mod by_the_page;
mod changed_files;
mod departures;
mod descriptions;
mod eclipse;
mod evil;
mod garbage;
mod liars;
mod names;
mod outlines;
mod outputs;
mod parts;
mod restarts;
mod resuming;
mod seeders;
mod shapes;
mod silence;
mod similar;
mod slow_peers;
mod targets;
mod waiting;
