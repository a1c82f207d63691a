//! The object store on RocksDB.
