//! Limits of the operating system, set in a process of their own.

use std::io::ErrorKind;
#[cfg(target_os = "linux")]
use std::path::Path;

use emdb::{Emdb, Error};

use crate::{alone, directory, in_child, run_child};

#[cfg(all(target_os = "linux", target_env = "gnu"))]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
type Resource = libc::c_int;

/// Limits this process.
fn limit(what: Resource, to: u64) {
    let limit = libc::rlimit {
        rlim_cur: to,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: `limit` is a valid struct for the call to read.
    if unsafe { libc::setrlimit(what, &raw const limit) } == 0 {
        return;
    }
    let limit = libc::rlimit {
        rlim_cur: to,
        rlim_max: to,
    };
    // SAFETY: `limit` is a valid struct for the call to read.
    let result = unsafe { libc::setrlimit(what, &raw const limit) };
    assert_eq!(result, 0);
}

#[test]
fn a_file_size_limit_is_a_full_disk() {
    if let Some(path) = in_child() {
        let db = Emdb::open(&path).unwrap();
        db.insert("first", "value").unwrap();
        // SAFETY: ignoring a signal installs no handler.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        limit(libc::RLIMIT_FSIZE, 1 << 20);
        let mut stored = 0;
        let error = loop {
            match db.insert(stored.to_string(), vec![stored as u8; 10_000]) {
                Ok(()) => stored += 1,
                Err(error) => break error,
            }
            assert!(stored < 1000_usize);
        };
        assert!(matches!(&error, Error::Io(_)), "{error:?}");
        assert!(stored > 20);
        let batch = (0..200).map(|n: usize| (n.to_string(), vec![1; 10_000]));
        assert!(matches!(db.insert_many(batch), Err(Error::Io(_))));
        let check = |db: &Emdb, stored: usize| {
            assert_eq!(db.len().unwrap(), stored + 1);
            for number in 0..stored {
                let value = db.get(number.to_string()).unwrap().unwrap();
                assert_eq!(value, vec![number as u8; 10_000]);
            }
        };
        check(&db, stored);
        db.flush().unwrap();
        limit(libc::RLIMIT_FSIZE, libc::RLIM_INFINITY);
        for _ in 0..50 {
            db.insert(stored.to_string(), vec![stored as u8; 10_000])
                .unwrap();
            stored += 1;
        }
        check(&db, stored);
        db.verify().unwrap();
        db.close().unwrap();
        check(&Emdb::open(&path).unwrap(), stored);
        return;
    }
    let _alone = alone();
    let (_directory, path) = directory();
    run_child("limits::a_file_size_limit_is_a_full_disk", &path);
}

#[test]
fn a_thousand_databases_are_open_at_once() {
    const COUNT: usize = 1000;
    let mut now = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `now` is there for the call to write.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut now) };
    assert_eq!(result, 0);
    let wanted = COUNT as u64 * 3 + 100;
    if now.rlim_max < wanted {
        eprintln!("skipped: at most {} files may be open", now.rlim_max);
        return;
    }
    if let Some(path) = in_child() {
        now.rlim_cur = wanted;
        // SAFETY: `now` is a valid struct for the call to read.
        let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const now) };
        assert_eq!(result, 0);
        let databases: Vec<_> = (0..COUNT)
            .map(|number| {
                let db = Emdb::open(path.with_extension(number.to_string())).unwrap();
                db.insert("number", number.to_string()).unwrap();
                db
            })
            .collect();
        for (number, db) in databases.iter().enumerate() {
            let found = db.get("number").unwrap().unwrap();
            assert_eq!(found, number.to_string().as_bytes());
        }
        return;
    }
    let _alone = alone();
    let (_directory, path) = directory();
    run_child("limits::a_thousand_databases_are_open_at_once", &path);
}

/// Bytes of memory that this process has, its own code not counted: that is read from
/// the program's file when it first runs, depends on how the program was compiled, and
/// is the same however many databases are open. What code writes is counted, and so is
/// every map of a file in `directory`.
#[cfg(target_os = "linux")]
fn resident_bytes_without_code(directory: &Path) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut kib, mut counted) = (0, "");
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let first = words.next().unwrap();
        if !first.ends_with(':') {
            // Addresses, rights, offset, device, inode, path.
            let path = words.nth(4).unwrap_or_default();
            let is_programs = path.starts_with('/') && !Path::new(path).starts_with(directory);
            counted = if is_programs { "Anonymous:" } else { "Rss:" };
        } else if first == counted {
            kib += words.next().unwrap().parse::<u64>().unwrap();
        }
    }
    kib << 10
}

#[cfg(target_os = "linux")]
#[test]
fn an_empty_database_is_small() {
    use std::os::unix::fs::MetadataExt;

    if let Some(path) = in_child() {
        let directory = path.parent().unwrap();
        let before = resident_bytes_without_code(directory);
        // The first one in this process: what it sets up once is counted, too.
        let db = Emdb::open(&path).unwrap();
        db.insert("key", "value").unwrap();
        let more = resident_bytes_without_code(directory).saturating_sub(before);
        assert!(more > 0);
        assert!(more < 1 << 20, "{more} bytes of memory");
        let on_disk: u64 = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().blocks() * 512)
            .sum();
        assert!(on_disk < 64 << 10, "{on_disk} bytes on disk");
        return;
    }
    let _alone = alone();
    let (_directory, path) = directory();
    run_child("limits::an_empty_database_is_small", &path);
}

#[cfg(target_os = "linux")]
#[test]
fn a_database_works_in_two_gibibytes_of_address_space() {
    if let Some(path) = in_child() {
        limit(libc::RLIMIT_AS, 2 << 30);
        for round in 0..3_u32 {
            let db = Emdb::open(&path).unwrap();
            for number in 0..100_u32 {
                db.insert((round * 100 + number).to_string(), vec![1; 100_000])
                    .unwrap();
            }
            assert_eq!(db.len().unwrap() as u32, (round + 1) * 100);
            let walked = db
                .iter()
                .unwrap()
                .filter(|(_, value)| value.len() == 100_000);
            assert_eq!(walked.count() as u32, (round + 1) * 100);
            db.checkpoint().unwrap();
        }
        return;
    }
    let _alone = alone();
    let (_directory, path) = directory();
    run_child(
        "limits::a_database_works_in_two_gibibytes_of_address_space",
        &path,
    );
}

#[test]
fn too_few_file_descriptors_are_an_error() {
    if let Some(path) = in_child() {
        limit(libc::RLIMIT_NOFILE, 24);
        let mut open = Vec::new();
        let error = (0..100)
            .find_map(|number| {
                match Emdb::open(path.with_extension(number.to_string())) {
                    Ok(db) => open.push(db),
                    Err(error) => return Some(error),
                }
                None
            })
            .unwrap();
        assert!(
            matches!(&error, Error::Io(error) if error.kind() != ErrorKind::NotFound),
            "{error:?}"
        );
        assert!(!open.is_empty());
        for db in &open {
            db.insert("still", "works").unwrap();
            assert_eq!(db.len().unwrap(), 1);
        }
        return;
    }
    let _alone = alone();
    let (_directory, path) = directory();
    run_child("limits::too_few_file_descriptors_are_an_error", &path);
}
