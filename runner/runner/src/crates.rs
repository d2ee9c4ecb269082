//! The crates that this program is made of, where scanners look for them.

const LISTED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/dep-v0"));

#[used]
#[unsafe(link_section = ".dep-v0")]
static CRATES: [u8; LISTED.len()] = {
    let mut bytes = [0; LISTED.len()];
    bytes.copy_from_slice(LISTED);
    bytes
};
