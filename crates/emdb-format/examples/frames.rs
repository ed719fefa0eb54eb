//! Writes three frames into a buffer and reads them back.

use emdb_format::{Frame, FrameSpec, Kind, Stamp};

fn main() -> Result<(), emdb_format::FormatError> {
    let stamp = Stamp::new(&[42; 16], 1);
    let mut journal = Vec::new();
    for (key, value) in [("a", "apple"), ("b", "banana"), ("c", "cherry")] {
        let spec = FrameSpec::new(Kind::Put, key.as_bytes(), value.as_bytes());
        let at = journal.len();
        journal.resize(at + spec.encoded_len()?, 0);
        spec.encode_into(&mut journal[at..], stamp, at as u64)?;
    }

    let mut at = 0;
    while at < journal.len() {
        let frame = Frame::parse(&journal[at..])?;
        frame.verify(stamp, at as u64)?;
        println!(
            "{at:4}: {} = {} ({} bytes)",
            String::from_utf8_lossy(frame.key),
            String::from_utf8_lossy(frame.value),
            frame.len()
        );
        at += frame.len();
    }
    Ok(())
}
