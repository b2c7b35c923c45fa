//! The sums of all quotas while one transaction works on them.
//! Invariant: a repository is in a sum once: when the sum was filled past its path, or by its own change after that.

use twinport_access::{Quota, RepositoryPattern};
use twinport_oci::RepositoryName;

use super::Usage;
use crate::{
    Error, Result,
    db::{Row, Tx},
};

pub(super) struct Sums(Vec<Sum>);

struct Sum {
    rule: String,
    pattern: RepositoryPattern,
    bytes: i64,
    repositories: i64,
    /// How far it is filled; none once it is.
    after_path: Option<String>,
    changed: bool,
}

impl Sums {
    /// Reads the sums of these quotas, and begins those that are new; others are forgotten.
    pub(super) async fn load(tx: &mut Tx, quotas: &[Quota]) -> Result<Self> {
        const ALL: &str =
            "SELECT rule, pattern, bytes, repositories, after_path FROM quota_usage ORDER BY rule";
        let rows = tx.query(ALL, vec![]).await?;
        let mut sums = Vec::with_capacity(quotas.len());
        for quota in quotas {
            let stored = rows.iter().find(|row| is_of(row, quota));
            sums.push(match stored {
                Some(row) => Sum {
                    rule: quota.name.to_string(),
                    pattern: quota.repositories.clone(),
                    bytes: row.int(2)?,
                    repositories: row.int(3)?,
                    after_path: row.opt_text(4)?,
                    changed: false,
                },
                None => Sum {
                    rule: quota.name.to_string(),
                    pattern: quota.repositories.clone(),
                    bytes: 0,
                    repositories: 0,
                    after_path: Some(String::new()),
                    changed: true,
                },
            });
        }
        for row in &rows {
            let rule = row.text(0)?;
            if !quotas.iter().any(|quota| quota.name.as_str() == rule) {
                tx.send("DELETE FROM quota_usage WHERE rule = $1", vec![rule.into()]).await?;
            }
        }
        Ok(Self(sums))
    }

    pub(super) async fn store(&self, tx: &mut Tx) -> Result<()> {
        const STORE: &str = "INSERT INTO quota_usage (rule, pattern, bytes, repositories, after_path) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (rule) DO UPDATE SET pattern = excluded.pattern, \
             bytes = excluded.bytes, repositories = excluded.repositories, after_path = excluded.after_path";
        let changed = self.0.iter().filter(|sum| sum.changed);
        let rows = changed.map(|sum| {
            vec![
                sum.rule.as_str().into(),
                sum.pattern.as_str().into(),
                sum.bytes.into(),
                sum.repositories.into(),
                sum.after_path.clone().into(),
            ]
        });
        tx.send_each(STORE, rows.collect()).await
    }

    /// A repository came to hold `after` instead of `before`.
    pub(super) fn change(&mut self, before: Option<&Usage>, after: Option<&Usage>) -> Result<()> {
        if let Some(before) = before {
            self.add(before, -1)?;
        }
        match after {
            Some(after) => self.add(after, 1),
            None => Ok(()),
        }
    }

    fn add(&mut self, usage: &Usage, times: i64) -> Result<()> {
        let name = read(&usage.path)?;
        for sum in self.0.iter_mut().filter(|sum| sum.pattern.matches(&name)) {
            // What lies ahead of the filling is summed when it comes there.
            if sum.after_path.as_ref().is_none_or(|after| usage.path <= *after) {
                sum.bytes += times * usage.bytes;
                sum.repositories += times;
                sum.changed = true;
            }
        }
        Ok(())
    }

    /// Where the filling goes on; none where every sum is whole.
    pub(super) fn unfinished(&self) -> Option<String> {
        self.0.iter().filter_map(|sum| sum.after_path.clone()).min()
    }

    /// Takes the repository at `path` into every sum that has not come there yet.
    pub(super) fn fill(&mut self, path: &str, bytes: i64) -> Result<()> {
        let name = read(path)?;
        for sum in &mut self.0 {
            if sum.after_path.as_ref().is_none_or(|after| path <= after.as_str()) {
                continue;
            }
            if sum.pattern.matches(&name) {
                sum.bytes += bytes;
                sum.repositories += 1;
            }
            sum.after_path = Some(path.to_owned());
            sum.changed = true;
        }
        Ok(())
    }

    /// There are no more repositories to fill the sums with.
    pub(super) fn finish(&mut self) {
        for sum in self.0.iter_mut().filter(|sum| sum.after_path.is_some()) {
            sum.after_path = None;
            sum.changed = true;
        }
    }
}

fn is_of(row: &Row, quota: &Quota) -> bool {
    let is = |index, text: &str| row.text(index).is_ok_and(|stored| stored == text);
    is(0, quota.name.as_str()) && is(1, quota.repositories.as_str())
}

fn read(path: &str) -> Result<RepositoryName> {
    RepositoryName::parse(path).map_err(|error| Error::Corrupt(format!("a repository's path: {error}")))
}
