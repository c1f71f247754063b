-- The hundred pages that are asked for most; of pages that are asked for equally often, those that come first by name.
WITH pages AS (
    SELECT page, count(*) AS requests, count(*) FILTER (WHERE failed) AS failed_requests, count(DISTINCT client) AS clients
    FROM silver.requests
    WHERE page IS NOT NULL
    GROUP BY page
)

SELECT row_number() OVER (ORDER BY requests DESC, page) AS rank, page, requests, failed_requests, clients
FROM pages
QUALIFY row_number() OVER (ORDER BY requests DESC, page) <= 100
