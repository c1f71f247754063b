SELECT
    customer,
    count(*) AS orders,
    CAST(sum(quantity * unit_price) AS DECIMAL(18, 2)) AS revenue
FROM silver.orders
WHERE status <> 'returned'
GROUP BY customer
ORDER BY revenue DESC
