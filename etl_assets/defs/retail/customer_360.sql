-- One row per customer, those who never bought anything included: who they are, what they bought, what they are worth.
WITH lines AS (
    SELECT s.customer_id, s.status, s.quantity, s.line_total, CAST(s.sold_at AS DATE) AS sold_on, p.category
    FROM silver.sales AS s
    INNER JOIN silver.products AS p ON s.product_id = p.product_id
    WHERE s.status IN ('completed', 'returned')
),

totals AS (
    SELECT
        customer_id,
        count(*) FILTER (WHERE status = 'completed') AS orders,
        count(*) FILTER (WHERE status = 'returned') AS returns,
        sum(quantity) FILTER (WHERE status = 'completed') AS units_sold,
        -sum(quantity) FILTER (WHERE status = 'returned') AS units_returned,
        sum(line_total) FILTER (WHERE status = 'completed') AS gross_revenue,
        -sum(line_total) FILTER (WHERE status = 'returned') AS returned_amount,
        sum(line_total) AS net_revenue,
        min(sold_on) FILTER (WHERE status = 'completed') AS first_order_on,
        max(sold_on) FILTER (WHERE status = 'completed') AS last_order_on
    FROM lines
    GROUP BY customer_id
),

favourites AS (
    SELECT customer_id, category AS favourite_category
    FROM lines
    WHERE status = 'completed'
    GROUP BY customer_id, category
    QUALIFY row_number() OVER (PARTITION BY customer_id ORDER BY sum(line_total) DESC, category) = 1
)

SELECT
    c.customer_id,
    c.segment,
    c.country_code,
    c.registered_on,
    coalesce(t.orders, 0) AS orders,
    coalesce(t.returns, 0) AS returns,
    CAST(coalesce(t.units_sold, 0) AS BIGINT) AS units_sold,
    CAST(coalesce(t.units_returned, 0) AS BIGINT) AS units_returned,
    CAST(coalesce(t.gross_revenue, 0) AS DECIMAL(18, 2)) AS gross_revenue,
    CAST(coalesce(t.returned_amount, 0) AS DECIMAL(18, 2)) AS returned_amount,
    CAST(coalesce(t.net_revenue, 0) AS DECIMAL(18, 2)) AS net_revenue,
    t.first_order_on,
    t.last_order_on,
    f.favourite_category,
    CASE
        WHEN t.net_revenue >= 25000 THEN 'Platinum'
        WHEN t.net_revenue >= 10000 THEN 'Gold'
        WHEN t.net_revenue >= 2500 THEN 'Silver'
        WHEN t.net_revenue > 0 THEN 'Bronze'
        ELSE 'None'
    END AS value_tier
FROM silver.customers AS c
LEFT JOIN totals AS t ON c.customer_id = t.customer_id
LEFT JOIN favourites AS f ON c.customer_id = f.customer_id
