//! `/app/batch`: the nightly job. It counts the shifts and says so.

use crate::{db, log};

pub fn main() -> i32 {
    let counted = db::connect().and_then(|mut c| {
        let row = c.query_one("SELECT count(*) FROM shifts", &[]).map_err(db::text)?;
        Ok(row.get::<_, i64>(0))
    });
    match counted {
        Ok(n) => {
            log::info(&format!("batch finished shifts={n}"));
            0
        }
        Err(e) => {
            log::error(&format!("batch failed error={}", log::quoted(&e)));
            1
        }
    }
}
