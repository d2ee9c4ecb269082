//! Addresses that weights can be downloaded from.

use nt_tasks::Error;

/// Whether this names something to download rather than a file.
pub fn is_url(weights: &str) -> bool {
    weights.starts_with("https://") || weights.starts_with("http://")
}

/// Refuses addresses that nothing is downloaded from: some, or all where this program cannot.
pub fn check(weights: &str) -> Result<(), Error> {
    if !is_url(weights) {
        return Ok(());
    }
    let shown = shown(weights);
    if !cfg!(feature = "downloads") {
        return Err(Error::Usage(format!(
            "--weights {shown}: this archive was built with its weights inside, and its program downloads nothing; leave \
             --weights out, or build the archive with --weights-outside"
        )));
    }
    if !allowed(weights) {
        return Err(Error::Usage(format!("{shown}: http:// is for this machine's own addresses only; use https://")));
    }
    Ok(())
}

/// https, or http on this machine.
pub fn allowed(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return url.starts_with("https://") };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => authority.split(':').next().unwrap_or(""),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// An address without its query, which may hold a key.
pub fn shown(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_in_the_clear() {
        for url in ["https://a.example/w", "http://localhost/w", "http://127.0.0.1:8000/w", "http://[::1]:8000/w"] {
            assert!(allowed(url), "{url}");
        }
        for url in
            ["http://a.example/w", "http://localhost.example/", "http://127.0.0.1@a.example/", "http://", "file:///w"]
        {
            assert!(!allowed(url), "{url}");
        }
    }

    #[test]
    fn keys_in_addresses_are_not_shown() {
        assert_eq!(shown("https://a.example/w?key=secret"), "https://a.example/w");
    }
}
