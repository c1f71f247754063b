-- Orders by the day of their last change. What is placed and not paid is no revenue.
SELECT
    CAST(changed_at AS DATE) AS day,
    count(*) AS orders,
    count(*) FILTER (WHERE status <> 'placed') AS paid_orders,
    CAST(coalesce(sum(amount) FILTER (WHERE status <> 'placed'), 0) AS DECIMAL(18, 2)) AS revenue
FROM silver.orders
GROUP BY CAST(changed_at AS DATE)
