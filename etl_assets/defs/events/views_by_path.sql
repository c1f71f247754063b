-- How often, by how many and for how long each page was looked at.
SELECT
    path,
    count(*) AS views,
    count(DISTINCT customer_id) AS customers,
    CAST(round(avg(duration_ms)) AS BIGINT) AS mean_duration_ms
FROM silver.page_views
GROUP BY path
