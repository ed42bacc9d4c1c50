//! leecher
