//! What fuzz targets reach into; built for them alone (`cfg(fuzzing)`). A target fails where one of these panics.

use crate::{
    config::Config,
    path,
    query::{Page, Query},
};

/// A path that names something names a repository by the grammar, and none that leads elsewhere.
pub fn path(raw: &str) {
    let Ok(route) = path::parse(raw) else { return };
    if let Some(name) = route.repository() {
        assert!(name.as_str().split('/').all(|part| !["", ".", ".."].contains(&part)), "{raw} names {name}");
    }
}

/// A query gives pages within their bounds.
pub fn query(raw: &str) {
    let Ok(query) = Query::parse(Some(raw)) else { return };
    if let Ok(page) = Page::parse(&query, 100) {
        assert!(page.limit <= 100 && page.last.is_none_or(|last| last.len() <= 255), "{raw}");
    }
}

/// A configuration that can be run with is shown in a form that reads back.
pub fn config(text: &str) {
    // Which would be read.
    if text.contains("password_file") {
        return;
    }
    let Some(config) = Config::of_text(text) else { return };
    let shown = config.show();
    let again = Config::of_text(&shown).unwrap_or_else(|| panic!("this does not read back:\n{shown}"));
    assert_eq!((again.http, again.log, again.auth), (config.http, config.log, config.auth), "{shown}");
}
