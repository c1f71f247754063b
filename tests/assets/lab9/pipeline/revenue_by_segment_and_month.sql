SELECT
    c.segment,
    CAST(date_trunc('month', s.sold_at) AS DATE) AS month,
    count(*) AS sales,
    CAST(sum(s.line_total) AS DECIMAL(18, 2)) AS revenue
FROM silver.sales AS s
INNER JOIN silver.customers AS c ON s.customer_id = c.customer_id
GROUP BY c.segment, CAST(date_trunc('month', s.sold_at) AS DATE)
