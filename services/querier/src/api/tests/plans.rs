//! What a query says of its plan, and the bounds of what it may read.

use super::*;

/// What the first tenant's profiles of both pods are without those of pod a.
const WITHOUT_A: i64 = 7;

async fn house(limits: TenantLimits) -> House {
    House::with(limits, true).await
}

#[tokio::test]
async fn a_dry_run_reads_nothing() {
    let house = house(TenantLimits::default()).await;
    for (path, more) in [("/api/v1/query", ("format", "pprof")), ("/api/v1/query_range", ("step", "60"))] {
        let answer = house.get("first", path, &[("query", CPU), ("dry_run", "true"), more]).await;
        let data = answer.data();
        assert_eq!((&data["blocks"], &data["heads"]), (&json!(1), &json!(0)), "{}", answer.text());
        assert!(data["bytes_estimated"].as_u64().unwrap() > 0);
        assert!(data["sources"][0].get("cost").is_none());
        assert_eq!(data["skipped"], json!({"range": 0, "series": 0, "expired": 0}));
        assert_eq!(answer.json()["stats"]["bytes_needed"], 0);
    }
    let nobody = format!("{CPU}{{pod=\"z\"}}");
    let answer = house.get("first", "/api/v1/query", &[("query", &nobody), ("dry_run", "true")]).await;
    assert_eq!(answer.data()["skipped"]["series"], 1);
    let early = [("query", CPU), ("end", "10"), ("dry_run", "true")];
    assert_eq!(house.get("first", "/api/v1/query", &early).await.data()["blocks"], 0);
}

#[tokio::test]
async fn an_explained_query_says_what_it_read_and_whole_blocks_are_not_summed_twice() {
    let house = house(TenantLimits::default()).await;
    let ask = async || {
        let answer = house.get("first", "/api/v1/query", &[("query", CPU), ("explain", "true")]).await;
        assert_eq!(answer.data()["total"], 42);
        answer.json()["explain"].clone()
    };
    let (first, second) = (ask().await, ask().await);
    let needed = |explain: &Value| explain["sources"][0]["cost"]["bytes_needed"].as_u64().unwrap();
    assert!(needed(&first) > needed(&second), "{first}\n{second}");
    assert!(first["bytes_by_section"].get("samples").is_some(), "{first}");
    assert_eq!(second["bytes_by_section"].as_object().unwrap().keys().collect::<Vec<_>>(), ["series"]);
    assert_eq!(
        (&second["sources"][0]["cost"]["requests"], &second["sources"][0]["level"]),
        (&json!(0), &json!(0))
    );
    let range = house
        .get("first", "/api/v1/query_range", &[("query", CPU), ("step", "60"), ("explain", "true")])
        .await;
    assert!(range.json()["explain"]["bytes_by_section"].get("profiles").is_some(), "{}", range.text());
    let other =
        house.get("first", "/api/v1/query", &[("query", CPU), ("explain", "true"), ("format", "dot")]).await;
    assert_eq!(other.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_is_deleted_is_not_in_a_kept_sum() {
    let house = house(TenantLimits::default()).await;
    let total = async || house.get("first", "/api/v1/query", &[("query", CPU)]).await.data()["total"].clone();
    assert_eq!((total().await, total().await), (json!(42), json!(42)));
    let tenant =
        house.querier.deps().tenants.resolve(&TenantId::new("first").unwrap()).await.unwrap().unwrap();
    let now_ns = NOW * SECOND_NS;
    let deletion = Deletion { selector: "{pod=\"a\"}".parse().unwrap(), range: TimeRange::new(0, now_ns) };
    house.querier.deps().catalogue.delete(tenant.number, &deletion, now_ns).await.unwrap();
    assert_eq!((total().await, total().await), (json!(WITHOUT_A), json!(WITHOUT_A)));
}

#[tokio::test]
async fn a_query_that_needs_too_many_bytes_is_refused() {
    let house = house(TenantLimits { query_bytes_max: 1_000, ..TenantLimits::default() }).await;
    let answer = house.get("first", "/api/v1/query", &[("query", CPU)]).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let text = answer.text();
    assert!(text.contains("more than 1000 bytes (query_bytes_max)"), "{text}");
}
