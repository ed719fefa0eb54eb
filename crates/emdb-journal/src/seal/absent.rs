//! What stands for sealing where the feature `encrypt` is off: nothing is ever sealed.

use std::ops::Range;

use emdb_format::{
    EPOCH_FRAME_LEN, EpochMark, Frame, FrameSpec, Header, Marker, SealedFrame, SealedLayout, Stamp,
};

use crate::error::Error;
use crate::opened::Opened;

/// Cannot exist.
pub(crate) enum Encryption {}

/// Cannot exist.
pub(crate) enum Seal {}

/// Cannot exist.
pub(crate) enum SealedSidecar {}

/// The way a sidecar is written.
type Write<'a> = &'a mut dyn FnMut(&mut dyn std::io::Write) -> std::io::Result<()>;

impl Seal {
    pub(crate) fn of(header: &Header, _: Option<&Encryption>) -> Result<Option<Self>, Error> {
        if header.sealing.cipher == 0 {
            Ok(None)
        } else {
            Err(Error::Sealed)
        }
    }

    pub(crate) fn create(_: &mut Header, encryption: &Encryption) -> Result<Self, Error> {
        match *encryption {}
    }

    pub(crate) fn authenticate(&self, _: &mut Header) {
        match *self {}
    }

    pub(crate) fn next_header(&self, _: &Header) -> Header {
        match *self {}
    }

    pub(crate) fn check_history(&self, _: &Header) -> Result<(), Error> {
        match *self {}
    }

    pub(crate) fn read_from(&self, _: u64) {
        match *self {}
    }

    pub(crate) fn begin_epoch(&self, _: u64) -> Result<(), Error> {
        match *self {}
    }

    pub(crate) fn is_due(&self, _: u64) -> bool {
        match *self {}
    }

    pub(crate) fn limit(&self) -> u64 {
        match *self {}
    }

    pub(crate) fn set_full(&self) {
        match *self {}
    }

    pub(crate) fn is_full(&self) -> bool {
        match *self {}
    }

    pub(crate) fn epoch_frame(&self, _: u64, _: Stamp) -> Result<[u8; EPOCH_FRAME_LEN], Error> {
        match *self {}
    }

    pub(crate) fn meet(&self, _: u64, _: &EpochMark) -> Result<(), Error> {
        match *self {}
    }

    pub(crate) fn sign(&self, _: u64, _: &mut Marker, _: &[u8; 16]) -> Result<(), Error> {
        match *self {}
    }

    pub(crate) fn check(&self, _: u64, _: &Marker, _: &[u8; 16]) -> Result<(), Error> {
        match *self {}
    }

    pub(crate) fn seal(
        &self,
        _: u64,
        _: &FrameSpec<'_>,
        _: &SealedLayout,
        _: &mut [u8],
        _: Stamp,
    ) -> Result<u32, Error> {
        match *self {}
    }

    pub(crate) fn seal_stored(
        &self,
        _: u64,
        _: &SealedLayout,
        _: &mut [u8],
        _: Stamp,
    ) -> Result<u32, Error> {
        match *self {}
    }

    pub(crate) fn plain_value<'b>(
        &self,
        _: u64,
        _: &[u8],
        _: &[u8],
        _: &'b Opened,
    ) -> Option<&'b [u8]> {
        match *self {}
    }

    pub(crate) fn keep<'b>(&self, _: Vec<u8>, _: &'b Opened) -> &'b [u8] {
        match *self {}
    }

    pub(crate) fn open<'b>(
        &self,
        _: u64,
        _: &SealedFrame<'b>,
        _: bool,
        _: &'b Opened,
    ) -> Result<Frame<'b>, Error> {
        match *self {}
    }

    pub(crate) fn write_sidecar(
        &self,
        _: u64,
        _: &mut dyn std::io::Write,
        _: Write<'_>,
    ) -> std::io::Result<()> {
        match *self {}
    }

    pub(crate) fn open_sidecar(&self, _: &[u8]) -> Option<SealedSidecar> {
        match *self {}
    }
}

impl SealedSidecar {
    pub(crate) fn contents_len(&self) -> usize {
        match *self {}
    }

    pub(crate) fn read(&mut self, _: &[u8], _: Range<usize>) -> Option<Vec<u8>> {
        match *self {}
    }

    pub(crate) fn open(&self, _: &[u8], _: Range<usize>) -> Option<Vec<u8>> {
        match *self {}
    }
}
