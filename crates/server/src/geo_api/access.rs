//! `GET` and `POST /geo/v1/access`: access records for a site that follows this one, hashes of their secrets included.
//! Guards: nobody but a joined site gets any, and none of it is logged or kept by what lies in between.

use axum::{
    Json,
    extract::{
        Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, header::CACHE_CONTROL};
use twinport_geo::{
    RefusalCode,
    protocol::{AccessPage, AccessQuery, MAX_NAMED_RECORDS},
};
use twinport_metadata::RecordCursor;

use super::{GeoApiState, answer::Refused, repositories::PageQuery};

pub(super) async fn list(
    State(state): State<GeoApiState>,
    headers: HeaderMap,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Response, Refused> {
    state.puller(&headers).await?;
    let Query(query) = query?;
    let after = query.after.as_deref().map(str::parse::<RecordCursor>).transpose().map_err(|()| {
        Refused::new(RefusalCode::BadRequest, "after is not what an earlier page gave as next")
    })?;
    let page = state.metadata.access_listing(after.as_ref(), query.limit()).await?;
    let last = page.rows.last().filter(|_| !page.complete);
    let next = last.map(|row| RecordCursor::after(&row.record).to_string());
    Ok(private(AccessPage {
        records: page.rows.into_iter().map(Into::into).collect(),
        next,
        complete: page.complete,
    }))
}

pub(super) async fn named(
    State(state): State<GeoApiState>,
    headers: HeaderMap,
    query: Result<Json<AccessQuery>, JsonRejection>,
) -> Result<Response, Refused> {
    state.puller(&headers).await?;
    let Json(query) = query?;
    let names = &query.records;
    if names.len() > MAX_NAMED_RECORDS || names.iter().any(|record| record.name.contains('\0')) {
        return Err(Refused::new(
            RefusalCode::BadRequest,
            format!("at most {MAX_NAMED_RECORDS} records are given out by name at once"),
        ));
    }
    let records = state.metadata.access_records_named(query.records).await?;
    Ok(private(AccessPage {
        records: records.into_iter().map(Into::into).collect(),
        next: None,
        complete: true,
    }))
}

fn private(page: AccessPage) -> Response {
    ([(CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(page)).into_response()
}
