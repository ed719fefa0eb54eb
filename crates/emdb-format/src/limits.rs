//! The sizes everything else is checked against.

/// Version of the layout this crate reads and writes.
pub const FORMAT_VERSION: u32 = 1;
/// Bytes of one header slot; the block a slot is written as.
pub const HEADER_SLOT_BYTES: usize = 4096;
/// File positions of the two header slots.
pub const HEADER_SLOTS: [u64; 2] = [0, 8192];
/// Bytes at the front of the journal that hold the header slots.
pub const HEADER_BYTES: usize = 16_384;
/// Position of the first frame in a journal file.
pub const FIRST_POSITION: u64 = HEADER_BYTES as u64;
/// Longest key in bytes.
pub const KEY_LEN_MAX: usize = 65_536;
/// Longest value in bytes.
pub const VALUE_LEN_MAX: usize = 1 << 30;
/// Longest value covered by the frame's own checksum; a longer one has a second
/// checksum, so that its head can be believed without reading it.
pub const VALUE_INLINE_MAX: usize = 16_384;
/// Positions in one generation stay below this (44 bits, 16 TiB).
pub const POSITION_MAX: u64 = 1 << 44;
/// Sync markers start at multiples of this many bytes.
pub const MARKER_ALIGN: u64 = 64;
/// Bytes of a sync marker.
pub const MARKER_BYTES: usize = 64;
/// At least one marker stands in every stretch of this many bytes of frames.
pub const MARKER_DISTANCE: u64 = 1 << 20;
