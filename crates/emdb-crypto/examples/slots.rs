//! Wraps a master key by a passphrase, stores the slot, opens it again, seals and opens.

use emdb_crypto::{
    Cipher, EncryptionInput, Epoch, Error, KdfParams, KeySlot, MasterKey, Purpose, random_salt,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (cipher, database_id) = (Cipher::default(), [7; 16]);
    let passphrase = |text: &str| EncryptionInput::Passphrase(text.to_owned());

    // Once, when the database is made.
    let master = MasterKey::generate()?;
    let input = passphrase("correct horse battery staple");
    let slot = KeySlot::wrap(&master, &input, cipher, KdfParams::default(), &database_id)?;
    let stored = slot.to_bytes();
    println!("stored: {} bytes, {:?}", stored.len(), slot.kdf());

    // At every opening.
    let slot = KeySlot::from_bytes(&stored)?.ok_or("no key slot")?;
    let wrong = slot.unwrap_key(&passphrase("incorrect horse"), cipher, &database_id);
    assert!(matches!(wrong, Err(Error::KeyMismatch)));
    let master = slot.unwrap_key(&input, cipher, &database_id)?;

    // A new salt for every epoch. It is stored in the clear.
    let epoch = Epoch {
        cipher,
        purpose: Purpose::Frames,
        salt: random_salt()?,
        first_nonce: 16_384,
    };
    let key = master.epoch(&epoch, &database_id);
    let mut record = b"a record".to_vec();
    let tag = key.seal_in_place(16_384, b"", &mut record)?;
    println!("sealed: {record:02x?}");

    let mut opened = Vec::new();
    key.open_into(16_384, b"", &record, &tag, &mut opened)?;
    assert_eq!(opened, b"a record");
    println!("opened: {}", String::from_utf8_lossy(&opened));
    Ok(())
}
