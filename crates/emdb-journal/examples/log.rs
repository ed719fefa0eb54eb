//! Writes a log, closes it, and replays it.

use emdb_journal::{FileMedium, FrameSpec, Journal, Kind, OpenMode, Options};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join(format!("emdb-journal-example-{}", std::process::id()));
    let medium = || FileMedium::open(&path, OpenMode::Create).map(Box::new);

    let journal = Journal::open(medium()?, Options::default(), |_| {})?;
    for number in 0..5 {
        let text = format!("event {number}");
        let lsn = journal.append(&FrameSpec::new(Kind::Put, b"event", text.as_bytes()))?;
        println!("appended {text:?} at {lsn}");
    }
    journal.sync()?;
    println!("durable up to {}", journal.durable_lsn());
    journal.close()?;
    drop(journal);

    let mut replayed = 0;
    let journal = Journal::open(medium()?, Options::default(), |entry| {
        println!("replayed {:?}", String::from_utf8_lossy(entry.frame.value));
        replayed += 1;
    })?;
    assert_eq!(replayed, 5);
    drop(journal);
    std::fs::remove_file(&path)?;
    Ok(())
}
