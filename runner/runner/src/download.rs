//! Weights that are kept elsewhere: downloaded once, into the user's cache.
//!
//! Their size and digest stand in `bundle.json`. No more is taken than that, what was cut off goes on where it ended, and
//! the file has its name only when it is whole and the right one.

use crate::address::{allowed, is_url, shown};
use crate::cache;
use crate::output;
use nt_bundle::{Bundle, WeightFile};
use nt_tasks::Error;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, http};

const MOST_REDIRECTS: usize = 5;
/// Tries in a row that bring nothing.
const MOST_FAILURES: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(30);
const BLOCK: usize = 1 << 20;

type Outcome<T> = Result<T, String>;

/// The weights behind an address, from the cache where they are there.
pub fn weights(bundle: &Bundle, url: &str) -> Result<WeightFile, Error> {
    let told = |why: String| Error::Bundle(nt_bundle::Error::Weights(format!("{}: {why}", shown(url))));
    let Some(cache) = cache::directory() else {
        return Err(told("there is no cache to download it to; name a directory with NAMEDTENSOR_CACHE".into()));
    };
    let listed = &bundle.manifest().weights;
    let place = cache.join("weights").join(format!("{}.safetensors", listed.sha256));
    let download = Download { url, bytes: listed.bytes, sha256: &listed.sha256, place: &place };
    if place.exists() {
        match bundle.weights(Some(&place)) {
            Ok(weights) => return Ok(weights),
            // Whatever damaged it, it can be had again.
            Err(_) => drop(fs::remove_file(&place)),
        }
    }
    download.run().map_err(told)?;
    Ok(bundle.weights(Some(&place))?)
}

/// A file of known size and digest.
struct Download<'a> {
    url: &'a str,
    bytes: u64,
    sha256: &'a str,
    place: &'a Path,
}

/// Why a try brought no more.
enum Stop {
    /// Another may bring more: the connection broke, or the server is busy.
    Cut(String),
    /// No other will.
    Refused(String),
}

impl Download<'_> {
    fn run(&self) -> Outcome<()> {
        let partial = self.partial()?;
        let mut file = lock(&partial)?;
        // Another process may have done it meanwhile.
        if self.place.exists() {
            return Ok(());
        }
        let mut digest = Sha256::new();
        let mut have = self.resume(&mut file, &mut digest).map_err(|error| failed(&partial, &error))?;
        let agent = agent()?;
        let mut failures = 0;
        while have < self.bytes {
            let before = have;
            let stop = match self.fetch(&agent, &mut file, &mut digest, &mut have) {
                Ok(()) => continue,
                Err(Stop::Refused(why)) => return Err(why),
                Err(Stop::Cut(why)) => why,
            };
            failures = if have > before { 0 } else { failures + 1 };
            if failures == MOST_FAILURES {
                return Err(format!(
                    "{stop} ({have} of {} bytes are kept; the next start goes on from there)",
                    self.bytes
                ));
            }
            std::thread::sleep(Duration::from_millis(200 << failures));
        }
        if output::is_terminal() {
            output::progress("");
        }
        if cache::hexadecimal(&digest.finalize()) != self.sha256 {
            let _ = fs::remove_file(&partial);
            return Err("it is another file than the one that the archive was built with".into());
        }
        fs::rename(&partial, self.place).map_err(|error| failed(self.place, &error))
    }

    fn partial(&self) -> Outcome<PathBuf> {
        let directory = self.place.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory).map_err(|error| failed(directory, &error))?;
        Ok(directory.join(format!(".{}.partial", self.sha256)))
    }

    /// What an earlier start left: how much, and its digest so far.
    fn resume(&self, file: &mut fs::File, digest: &mut Sha256) -> std::io::Result<u64> {
        let mut have = file.metadata()?.len();
        if have > self.bytes {
            file.set_len(0)?;
            have = 0;
        }
        file.seek(SeekFrom::Start(0))?;
        let mut block = vec![0; BLOCK];
        let mut left = have;
        while left > 0 {
            let count = block.len().min(left as usize);
            file.read_exact(&mut block[..count])?;
            digest.update(&block[..count]);
            left -= count as u64;
        }
        Ok(have)
    }

    /// One request for what is missing. What it brings is written, and counted in `have`, whatever happens later.
    fn fetch(&self, agent: &Agent, file: &mut fs::File, digest: &mut Sha256, have: &mut u64) -> Result<(), Stop> {
        let mut response = self.request(agent, *have)?;
        match response.status().as_u16() {
            206 if starts_at(&response, *have, self.bytes) => {}
            // The server knows no ranges, or another file by this name.
            200 | 206 | 416 => {
                let whole = response.status().as_u16() == 200;
                if *have > 0 {
                    *digest = Sha256::new();
                    *have = 0;
                    file.set_len(0).and_then(|()| file.rewind()).map_err(|error| Stop::Refused(error.to_string()))?;
                }
                if !whole {
                    return Err(Stop::Cut("the server has no such part of it".into()));
                }
            }
            429 | 500..=599 => return Err(Stop::Cut(format!("the server answers {}", response.status()))),
            _ => return Err(Stop::Refused(format!("the server answers {}", response.status()))),
        }
        let other =
            |found: u64| Stop::Refused(format!("it has {found} bytes, not the {} of the archive's", self.bytes));
        if let Some(length) = response.body().content_length()
            && length != self.bytes - *have
        {
            return Err(other(*have + length));
        }
        let mut body = response.body_mut().as_reader();
        let mut block = vec![0; BLOCK];
        loop {
            let count = body.read(&mut block).map_err(|error| Stop::Cut(told(&error)))?;
            if count == 0 {
                break;
            }
            if count as u64 > self.bytes - *have {
                return Err(other(*have + count as u64));
            }
            file.write_all(&block[..count]).map_err(|error| Stop::Refused(told(&error)))?;
            digest.update(&block[..count]);
            *have += count as u64;
            if output::is_terminal() {
                output::progress(&format!("weights: {} of {} MB", *have / 1_000_000, self.bytes.div_ceil(1_000_000)));
            }
        }
        if *have < self.bytes { Err(Stop::Cut("the server ended early".into())) } else { Ok(()) }
    }

    /// The response that is no redirection. Each address on the way must be one that things are downloaded from.
    fn request(&self, agent: &Agent, have: u64) -> Result<http::Response<Body>, Stop> {
        let mut url = self.url.to_string();
        for _ in 0..=MOST_REDIRECTS {
            let mut request = agent.get(&url);
            if have > 0 {
                request = request.header("Range", format!("bytes={have}-"));
            }
            let response = request.call().map_err(|error| match error {
                ureq::Error::BadUri(_) | ureq::Error::Tls(_) | ureq::Error::Rustls(_) => {
                    Stop::Refused(error.to_string())
                }
                ureq::Error::Io(error) => Stop::Cut(told(&error)),
                error => Stop::Cut(error.to_string()),
            })?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let to = response.headers().get("location").and_then(|to| to.to_str().ok());
            let to =
                to.and_then(|to| resolved(&url, to)).ok_or_else(|| Stop::Refused("it is redirected nowhere".into()))?;
            if !allowed(&to) {
                return Err(Stop::Refused(format!("it is redirected to {}, which is not https://", shown(&to))));
            }
            url = to;
        }
        Err(Stop::Refused(format!("it is redirected more than {MOST_REDIRECTS} times")))
    }
}

/// The part's file, for this process alone: another that downloads the same waits here.
fn lock(partial: &Path) -> Outcome<fs::File> {
    let options = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(partial);
    let file = options.map_err(|error| failed(partial, &error))?;
    // SAFETY: the descriptor is open.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) } != 0 {
        return Err(failed(partial, &std::io::Error::last_os_error()));
    }
    Ok(file)
}

fn agent() -> Outcome<Agent> {
    let roots = match std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from) {
        Some(path) => {
            let pem = fs::read(&path).map_err(|error| failed(&path, &error))?;
            let certificates = parse_pem(&pem).filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            });
            RootCerts::Specific(Arc::new(certificates.collect()))
        }
        None => RootCerts::WebPki,
    };
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_connect(Some(PATIENCE))
        .timeout_recv_response(Some(PATIENCE))
        .timeout_per_read(Some(PATIENCE))
        .user_agent("namedtensor")
        .tls_config(TlsConfig::builder().root_certs(roots).build());
    Ok(config.build().into())
}

/// Whether a response begins where the file ends so far, and is of a file of the right size.
fn starts_at(response: &http::Response<Body>, have: u64, bytes: u64) -> bool {
    let range = response.headers().get("content-range").and_then(|range| range.to_str().ok());
    range.is_some_and(|range| range == format!("bytes {have}-{}/{bytes}", bytes - 1))
}

/// Where a redirection leads to: an address of its own, or another path of the same server.
fn resolved(from: &str, to: &str) -> Option<String> {
    if is_url(to) {
        return Some(to.into());
    }
    let scheme_end = from.find("://")? + 3;
    let authority_end = from[scheme_end..].find(['/', '?', '#']).map_or(from.len(), |at| scheme_end + at);
    (to.starts_with('/') && !to.starts_with("//")).then(|| format!("{}{to}", &from[..authority_end]))
}

fn failed(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {}", path.display(), told(error))
}

/// The system's words for an error, without its number.
fn told(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.clone(), |(words, _)| words.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_lead_to_addresses_and_paths() {
        let from = "https://a.example:1/b/c?d";
        assert_eq!(resolved(from, "/w?k=1").as_deref(), Some("https://a.example:1/w?k=1"));
        assert_eq!(resolved(from, "https://b.example/w").as_deref(), Some("https://b.example/w"));
        for to in ["w", "//b.example/w", "ftp://b.example/", ""] {
            assert_eq!(resolved(from, to), None, "{to}");
        }
    }
}
