-- What each customer segment bought and brought back, by the month of the sale. Cancelled sales are no revenue.
-- Amounts are the exact line totals (quantity x price - discount), not the totals as reported.
SELECT
    c.segment,
    CAST(date_trunc('month', s.sold_at) AS DATE) AS month,
    count(*) FILTER (WHERE s.status = 'completed') AS orders,
    count(*) FILTER (WHERE s.status = 'returned') AS returns,
    CAST(coalesce(sum(s.quantity) FILTER (WHERE s.status = 'completed'), 0) AS BIGINT) AS units_sold,
    CAST(coalesce(-sum(s.quantity) FILTER (WHERE s.status = 'returned'), 0) AS BIGINT) AS units_returned,
    CAST(coalesce(sum(s.line_total) FILTER (WHERE s.status = 'completed'), 0) AS DECIMAL(18, 2)) AS gross_revenue,
    CAST(coalesce(-sum(s.line_total) FILTER (WHERE s.status = 'returned'), 0) AS DECIMAL(18, 2)) AS returned_amount,
    CAST(sum(s.line_total) AS DECIMAL(18, 2)) AS net_revenue
FROM silver.sales AS s
INNER JOIN silver.customers AS c ON s.customer_id = c.customer_id
WHERE s.status IN ('completed', 'returned')
GROUP BY c.segment, CAST(date_trunc('month', s.sold_at) AS DATE)
