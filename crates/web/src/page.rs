//! The page, and what a browser may do with it.

use rand::RngExt;

/// One file: markup, style and script.
const PAGE: &str = include_str!("page.html");

/// What the page has in place of the number that its style and its script are known by.
const NONCE: &str = "{nonce}";

/// The page, and its content security policy: nothing runs but its own style and script, and these reach nothing but this server.
pub(crate) fn page() -> (String, String) {
    let nonce = format!("{:032x}", rand::rng().random::<u128>());
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    (PAGE.replace(NONCE, &nonce), policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_loads_nothing() {
        assert!(PAGE.len() <= 100_000, "{}", PAGE.len());
        for remote in
            ["http://", "https://", "src=", "url(", "@import", "innerHTML", "insertAdjacentHTML", "style=\""]
        {
            assert!(!PAGE.contains(remote), "{remote}");
        }
    }

    #[test]
    fn each_page_has_a_number_of_its_own() {
        let ((first, policy), (second, _)) = (page(), page());
        assert_ne!(first, second);
        let nonce = policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
        assert_eq!(first.matches(&format!("nonce=\"{nonce}\"")).count(), 2);
        assert!(!first.contains(NONCE));
    }
}
