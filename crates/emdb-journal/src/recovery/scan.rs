//! Walks the frames of a journal to where the log ends.

use emdb_format::{
    AnyFrame, BatchSum, Commit, Discard, EPOCH_FRAME_LEN, EpochMark, FormatError, Frame, Header,
    Kind, MARKER_ALIGN, MARKER_BYTES, Marker, SealedFrame, Stamp, marker_frame_len,
};

use super::Replayed;
use crate::error::Error;
use crate::extent::Extents;
use crate::medium::Medium;
use crate::opened::Opened;
use crate::seal::Seal;

/// What was read at a position.
enum Read<'a> {
    Frame(Frame<'a>),
    /// A frame about a sealed journal itself: its length, and up to where it says that all
    /// was synced.
    Journal(u64, u64),
}

struct OpenBatch {
    begin: u64,
    frames: Vec<u64>,
    sum: BatchSum,
}

/// Bytes that are on their way from the file while frames are walked.
const AHEAD_BYTES: u64 = 8 << 20;

/// Walks the frames of a journal.
pub(crate) struct Scan<'a> {
    extents: &'a Extents,
    header: &'a Header,
    seal: Option<&'a Seal>,
    stamp: Stamp,
    len: u64,
}

/// Where a walk ended.
pub(crate) struct ScanEnd {
    pub(super) at: u64,
    pub(super) confirmed: u64,
    pub(super) open_batch: Option<u64>,
}

impl ScanEnd {
    /// Position behind the last good frame.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }
}

impl<'a> Scan<'a> {
    /// `len` bytes are readable.
    pub(crate) fn new(
        extents: &'a Extents,
        header: &'a Header,
        seal: Option<&'a Seal>,
        len: u64,
    ) -> Self {
        let stamp = Stamp::new(&header.database_id, header.generation);
        Self {
            extents,
            header,
            seal,
            stamp,
            len,
        }
    }

    /// The frame at a position, not verified, its large value left out if that is sealed.
    pub(super) fn head<'b>(&self, position: u64, opened: &'b Opened) -> Result<Frame<'b>, Error>
    where
        'a: 'b,
    {
        let bytes = self.extents.bytes_below(position, self.len);
        let bytes =
            bytes.ok_or_else(|| Error::corrupted(position, "past the end of the journal"))?;
        match self.seal {
            None => Frame::parse(bytes).map_err(|error| corrupt(position, error)),
            Some(seal) => {
                let sealed = SealedFrame::parse(bytes).map_err(|error| corrupt(position, error))?;
                seal.open(position, &sealed, false, opened)
            }
        }
    }

    /// Reads and verifies the frame at a position of a sealed journal.
    ///
    /// The outer error is for what no crash leaves behind.
    fn read_sealed<'b>(
        &self,
        seal: &Seal,
        at: u64,
        bytes: &'b [u8],
        opened: &'b Opened,
    ) -> Result<Result<Read<'b>, FormatError>, Error> {
        let lsn = self.header.base_lsn + at;
        let frame = AnyFrame::parse(bytes).and_then(|frame| {
            frame.verify(self.stamp, lsn)?;
            Ok(frame)
        });
        match frame {
            Ok(AnyFrame::Sealed(sealed)) => {
                let frame = seal.open(at, &sealed, false, opened)?;
                if matches!(frame.kind, Kind::Filler | Kind::Extended) {
                    let reason = "a frame of a kind that is never sealed";
                    return Err(Error::corrupted(at, reason));
                }
                Ok(Ok(Read::Frame(frame)))
            }
            Ok(AnyFrame::Plain(frame)) => {
                let synced = self.read_plain(seal, at, &frame)?;
                Ok(Ok(Read::Journal(frame.len() as u64, synced)))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    /// Takes note of a plain frame in a sealed journal; gives what a marker says was synced.
    ///
    /// What it holds proves itself, but not how long the frame is: a longer one would hide
    /// its neighbours.
    fn read_plain(&self, seal: &Seal, at: u64, frame: &Frame<'_>) -> Result<u64, Error> {
        let base = self.header.base_lsn;
        match (frame.kind, frame.batch) {
            (Kind::Extended, false) if frame.len() == EPOCH_FRAME_LEN => {
                let mark = EpochMark::decode(frame.value).map_err(|error| corrupt(at, error))?;
                seal.meet(at, &mark)?;
                return Ok(0);
            }
            (Kind::Filler, false) if frame.len() == marker_frame_len(at) => {
                let marker_at = at + (frame.len() - frame.value.len()) as u64;
                let tag = &self.header.marker_tag;
                let marker = Marker::decode(frame.value, tag, self.stamp, base + marker_at);
                if let Some(marker) = marker
                    && frame.key.iter().all(|byte| *byte == 0)
                {
                    seal.check(at, &marker, tag)?;
                    return Ok(marker.synced.saturating_sub(base));
                }
            }
            _ => {}
        }
        let reason = "a plain record in an encrypted database";
        Err(Error::corrupted(at, reason))
    }

    /// Visits the frames that count, up to the end or the first bad frame.
    pub(crate) fn frames<E: From<Error>>(
        &self,
        from: u64,
        visit: &mut dyn FnMut(Replayed<'_>) -> Result<(), E>,
    ) -> Result<(ScanEnd, Option<FormatError>), E> {
        let (stamp, base) = (self.stamp, self.header.base_lsn);
        let mut confirmed = self.header.confirmed;
        let mut batch: Option<OpenBatch> = None;
        let mut at = from;
        if from > self.len {
            let reason = format!("the journal ends here, but {from} bytes were recorded");
            return Err(Error::corrupted(self.len, reason).into());
        }
        let mut asked_for = from;
        let damage = loop {
            if asked_for < self.len && at + AHEAD_BYTES / 2 >= asked_for {
                let to = asked_for.saturating_add(AHEAD_BYTES).min(self.len);
                self.extents.will_need(asked_for, to);
                asked_for = to;
            }
            let bytes = self.extents.bytes_below(at, self.len).unwrap_or(&[]);
            if bytes.is_empty() {
                break None;
            }
            let opened = Opened::new();
            let frame = match self.seal {
                None => match Frame::parse(bytes) {
                    Ok(frame) => {
                        if let Err(error) = frame.verify(stamp, base + at) {
                            break Some(error);
                        }
                        frame
                    }
                    Err(error) => break Some(error),
                },
                Some(seal) => match self.read_sealed(seal, at, bytes, &opened)? {
                    Ok(Read::Frame(frame)) => frame,
                    Ok(Read::Journal(len, synced)) => {
                        confirmed = confirmed.max(synced);
                        at += len;
                        continue;
                    }
                    Err(error) => break Some(error),
                },
            };
            match (frame.kind, frame.batch) {
                (Kind::Filler, false) => {
                    let marker_at = at + (frame.len() - frame.value.len()) as u64;
                    let tag = &self.header.marker_tag;
                    if let Some(marker) = Marker::decode(frame.value, tag, stamp, base + marker_at)
                        && marker.code == [0; 16]
                    {
                        confirmed = confirmed.max(marker.synced.saturating_sub(base));
                    }
                }
                (Kind::Put | Kind::Tombstone | Kind::Catalog, true) => {
                    let open = batch.get_or_insert_with(|| OpenBatch::new(at));
                    open.sum.add(frame.checksum());
                    open.frames.push(at);
                }
                (Kind::Discard, true) => {
                    let open = batch.get_or_insert_with(|| OpenBatch::new(at));
                    let discard = Discard::decode(frame.value).map_err(|e| corrupt(at, e))?;
                    if discard.from <= open.begin {
                        batch = None;
                    } else {
                        open.sum.add(frame.checksum());
                        let kept = open.frames.partition_point(|at| *at < discard.from);
                        open.frames.truncate(kept);
                    }
                }
                (Kind::Commit, true) => {
                    let commit = Commit::decode(frame.value).map_err(|e| corrupt(at, e))?;
                    let open = batch.take().unwrap_or_else(|| OpenBatch::new(at));
                    if commit.count != open.frames.len() as u64 || commit.sum != open.sum {
                        let reason = "a commit frame that does not match its batch";
                        return Err(Error::corrupted(at, reason).into());
                    }
                    self.visit_batch(&open.frames, visit)?;
                }
                (Kind::Put | Kind::Tombstone | Kind::Catalog, false) if batch.is_none() => {
                    visit(Replayed {
                        position: at,
                        frame: &frame,
                        scan: self,
                    })?;
                }
                _ => {
                    let reason = "a frame of a kind that this version does not know";
                    return Err(Error::corrupted(at, reason).into());
                }
            }
            at += frame.len() as u64;
        };
        if let Some(error) = damage
            && at < confirmed
        {
            return Err(corrupt(at, error).into());
        }
        if at < confirmed {
            let reason = format!("the journal ends here, but {confirmed} bytes were synced");
            return Err(Error::corrupted(at, reason).into());
        }
        let open_batch = batch.map(|open| open.begin);
        Ok((
            ScanEnd {
                at,
                confirmed,
                open_batch,
            },
            damage,
        ))
    }

    fn visit_batch<E: From<Error>>(
        &self,
        positions: &[u64],
        visit: &mut dyn FnMut(Replayed<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for &position in positions {
            let opened = Opened::new();
            let frame = self.head(position, &opened)?;
            visit(Replayed {
                position,
                frame: &frame,
                scan: self,
            })?;
        }
        Ok(())
    }

    /// Looks behind the first bad frame: a marker that confirms bytes past it makes
    /// it damage; otherwise tells how many bytes were written there.
    pub(super) fn examine_tail(
        &self,
        medium: &dyn Medium,
        bad: u64,
        error: FormatError,
    ) -> Result<u64, Error> {
        const STEP: u64 = 1 << 16;
        let (stamp, base) = (self.stamp, self.header.base_lsn);
        let mut last_written = None;
        let mut at = bad;
        while at < self.len {
            let data = medium.next_data(at);
            if data > at {
                at = data;
                continue;
            }
            let end = (at / STEP + 1).saturating_mul(STEP).min(self.len);
            let bytes = self.extents.bytes_below(at, end).unwrap_or(&[]);
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                last_written = Some(at + last as u64);
                let mut candidate = at.next_multiple_of(MARKER_ALIGN);
                while candidate < end {
                    let marker = self
                        .extents
                        .bytes_below(candidate, self.len.min(candidate + MARKER_BYTES as u64))
                        .and_then(|bytes| {
                            let tag = &self.header.marker_tag;
                            Marker::decode(bytes, tag, stamp, base + candidate)
                        });
                    if let Some(marker) = marker
                        && marker.synced.saturating_sub(base) > bad
                    {
                        return Err(corrupt(bad, error));
                    }
                    candidate += MARKER_ALIGN;
                }
            }
            at = end;
        }
        Ok(last_written.map_or(0, |last| last + 1 - bad))
    }
}

impl OpenBatch {
    fn new(begin: u64) -> Self {
        Self {
            begin,
            frames: Vec::new(),
            sum: BatchSum::default(),
        }
    }
}

pub(super) fn corrupt(position: u64, error: FormatError) -> Error {
    Error::corrupted(position, error.to_string())
}
