-- Every company, also one without people and deals.
WITH people AS (
    SELECT account_id, count(*) AS contacts, max(modified_at) AS modified_at
    FROM silver.contacts
    GROUP BY account_id
),

deals AS (
    SELECT
        account_id,
        count(*) FILTER (WHERE stage NOT IN ('won', 'lost')) AS open_deals,
        count(*) FILTER (WHERE stage = 'won') AS won_deals,
        count(*) FILTER (WHERE stage = 'lost') AS lost_deals,
        max(modified_at) AS modified_at
    FROM silver.opportunities
    GROUP BY account_id
)

SELECT
    a.account_id,
    a.name,
    a.industry,
    a.country_code,
    coalesce(p.contacts, 0) AS contacts,
    coalesce(d.open_deals, 0) AS open_deals,
    coalesce(d.won_deals, 0) AS won_deals,
    coalesce(d.lost_deals, 0) AS lost_deals,
    greatest(a.modified_at, coalesce(p.modified_at, a.modified_at), coalesce(d.modified_at, a.modified_at))
        AS last_activity_at
FROM silver.accounts AS a
LEFT JOIN people AS p ON a.account_id = p.account_id
LEFT JOIN deals AS d ON a.account_id = d.account_id
