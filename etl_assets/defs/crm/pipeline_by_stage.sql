-- Deals by stage. Amounts of different currencies are not added up.
SELECT
    stage,
    currency,
    count(*) AS deals,
    CAST(sum(amount) AS DECIMAL(18, 2)) AS amount,
    CAST(sum(amount * probability) / 100 AS DECIMAL(18, 2)) AS expected_amount
FROM silver.opportunities
GROUP BY stage, currency
