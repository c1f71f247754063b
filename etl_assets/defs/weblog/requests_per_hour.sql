-- Requests and bytes by hour and status.
SELECT
    date_trunc('hour', requested_at) AS hour,
    status,
    count(*) AS requests,
    CAST(coalesce(sum(bytes), 0) AS BIGINT) AS bytes
FROM silver.requests
GROUP BY date_trunc('hour', requested_at), status
