-- One row per product: what it sold, what came back, what it earned, and its place among its category.
WITH totals AS (
    SELECT
        product_id,
        count(*) FILTER (WHERE status = 'completed') AS orders,
        count(*) FILTER (WHERE status = 'returned') AS returns,
        sum(quantity) FILTER (WHERE status = 'completed') AS units_sold,
        -sum(quantity) FILTER (WHERE status = 'returned') AS units_returned,
        sum(line_total) FILTER (WHERE status = 'completed') AS gross_revenue,
        -sum(line_total) FILTER (WHERE status = 'returned') AS returned_amount,
        sum(line_total) AS net_revenue,
        sum(quantity) AS net_units
    FROM silver.sales
    WHERE status IN ('completed', 'returned')
    GROUP BY product_id
)

SELECT
    p.product_id,
    p.product_name,
    p.category,
    p.brand,
    p.price_tier,
    coalesce(t.orders, 0) AS orders,
    coalesce(t.returns, 0) AS returns,
    CAST(coalesce(t.units_sold, 0) AS BIGINT) AS units_sold,
    CAST(coalesce(t.units_returned, 0) AS BIGINT) AS units_returned,
    CAST(coalesce(t.gross_revenue, 0) AS DECIMAL(18, 2)) AS gross_revenue,
    CAST(coalesce(t.returned_amount, 0) AS DECIMAL(18, 2)) AS returned_amount,
    CAST(coalesce(t.net_revenue, 0) AS DECIMAL(18, 2)) AS net_revenue,
    -- Unknown where nobody knows what the product costs, rather than too high.
    CAST(
        coalesce(t.net_revenue, 0) - CAST(coalesce(t.net_units, 0) AS BIGINT) * p.cost AS DECIMAL(18, 2)
    ) AS margin,
    rank() OVER (PARTITION BY p.category ORDER BY coalesce(t.net_revenue, 0) DESC) AS rank_in_category
FROM silver.products AS p
LEFT JOIN totals AS t ON p.product_id = t.product_id
