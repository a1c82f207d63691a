//! How a store is tuned.

/// How content is compressed when it arrives. What is packed later is compressed much better, whatever this says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// Fast.
    #[default]
    Lz4,
    /// Smaller, and slower to write.
    Zstd,
}

/// How the database is tuned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RocksOptions {
    /// Content is gathered in memory up to this many bytes before it becomes a table.
    pub write_buffer_bytes: usize,
    /// So many of these buffers may wait to be written before writers wait.
    pub write_buffers: u32,
    /// How content is compressed when it arrives.
    pub compression: Compression,
    /// Blocks of tables kept in memory, in bytes.
    pub block_cache_bytes: usize,
    /// Unpacked groups kept in memory, in bytes. At least the one that was read last is kept.
    pub pack_cache_bytes: usize,
    /// Writes are refused as on a full disk while less than this many bytes are free: tables are
    /// written and merged in the background and need room.
    pub reserve_bytes: u64,
}

impl RocksOptions {
    /// What [`Default`] gives.
    pub const DEFAULT: Self = Self {
        write_buffer_bytes: 32 << 20,
        write_buffers: 2,
        compression: Compression::Lz4,
        block_cache_bytes: 64 << 20,
        pack_cache_bytes: 48 << 20,
        reserve_bytes: 128 << 20,
    };
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}
