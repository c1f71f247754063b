-- How many requests of an hour failed: by the fault of whoever asked (4xx), or of the server (5xx).
WITH hours AS (
    SELECT
        date_trunc('hour', requested_at) AS hour,
        count(*) AS requests,
        count(*) FILTER (WHERE status BETWEEN 400 AND 499) AS client_errors,
        count(*) FILTER (WHERE status >= 500) AS server_errors
    FROM silver.requests
    GROUP BY date_trunc('hour', requested_at)
)

SELECT
    hour,
    requests,
    client_errors,
    server_errors,
    CAST(round(100.0 * (client_errors + server_errors) / requests, 2) AS DECIMAL(5, 2)) AS error_percent
FROM hours
