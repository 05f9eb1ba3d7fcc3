//! Chromium, without a window and without a network.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::run;

/// Returns the page after its scripts have run. `size` is that of the window.
pub fn dom(page: &Path, fragment: &str, size: &str) -> String {
    shown(page, fragment, size, &[])
}

fn shown(page: &Path, fragment: &str, size: &str, options: &[&str]) -> String {
    let profile = tempfile::tempdir().unwrap();
    let mut chromium = Command::new("chromium");
    chromium
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--dump-dom",
            "--allow-file-access-from-files",
            "--hide-scrollbars",
        ])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(options)
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--window-size={size}"))
        .arg(format!("file://{}#{fragment}", page.display()))
        .stdin(Stdio::null());
    run(&mut chromium)
}

/// Shows a page 360 pixels wide, and checks that nobody has to scroll to its side. The page is in
/// a frame, since a browser's window is not so narrow.
pub fn check_width_on_a_phone(page: &Path) {
    let frame = page.with_file_name("phone.html");
    let text = format!(
        "<body><iframe src='{}' style='width:360px;height:780px;border:0'></iframe><script>onload = () => {{
            const page = document.querySelector('iframe').contentDocument.documentElement;
            document.title = `${{page.scrollWidth}} of ${{page.clientWidth}}`;
        }}</script>",
        page.file_name().unwrap().to_str().unwrap()
    );
    std::fs::write(&frame, text).unwrap();
    let shown = dom(&frame, "", "800,900");
    assert_eq!(title(&shown), "360 of 360");
}

/// Checks that all texts can be read in light and in dark mode: the contrast has to be 4.5 at least
/// (WCAG 2.1, level AA).
pub fn check_contrast(page: &Path) {
    let measured = page.with_file_name("contrast.html");
    let script = format!(
        "<script>{}onload = () => document.title = leastContrast()</script></html>",
        include_str!("contrast.js")
    );
    let text = std::fs::read_to_string(page).unwrap();
    assert!(text.contains("</html>"), "{text}");
    std::fs::write(&measured, text.replace("</html>", &script)).unwrap();
    for (mode, setting) in [("light", 1), ("dark", 0)] {
        let option = format!("--blink-settings=preferredColorScheme={setting}");
        let shown = shown(&measured, "", "1366,768", &[&option]);
        let found = title(&shown);
        let (contrast, text) = found.split_once(" of ").unwrap_or_else(|| panic!("{shown}"));
        let contrast: f64 = contrast.parse().unwrap();
        assert!(contrast.is_finite(), "the page has no text: {shown}");
        assert!(contrast >= 4.5, "{mode}: {contrast} of {text}");
    }
}

fn title(page: &str) -> String {
    let (_, title) = page.split_once("<title>").unwrap();
    title.split_once("</title>").unwrap().0.to_owned()
}
